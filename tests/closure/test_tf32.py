"""TF32 is read from torch's switches; on this processor it is pretended."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from f3eo import FiniteDifference, PerSample
from f3eo.closure.graph import contents
from f3eo.closure.problem import Problem
from f3eo.closure.tf32 import UNIT, tf32_unit

EPS = torch.finfo(torch.float32).eps


@pytest.fixture
def switches():
    """Of products and of convolutions; both off, and put back afterwards."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("switches of torch before 2.9")
    before = matmul.fp32_precision, conv.fp32_precision
    matmul.fp32_precision, conv.fp32_precision = "ieee", "ieee"
    yield matmul, conv
    matmul.fp32_precision, conv.fp32_precision = before


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("convolution", [False, True])
def test_each_kind_of_product_has_its_switch(switches, product, convolution):
    for switch, on in zip(switches, (product, convolution), strict=True):
        switch.fp32_precision = "tf32" if on else "ieee"
    assert tf32_unit("cuda", convolves=False) == UNIT * product
    assert tf32_unit("cuda", convolves=True) == UNIT * (product or convolution)
    assert tf32_unit("cpu", convolves=True) == 0


def test_where_a_switch_says_nothing_the_wider_one_does(switches):
    switches[0].fp32_precision = "none"
    before = torch.backends.fp32_precision
    try:
        for said, unit in (("tf32", UNIT), ("ieee", 0)):
            torch.backends.fp32_precision = said
            switches[0].fp32_precision = "none"
            assert tf32_unit("cuda", convolves=False) == unit
    finally:
        torch.backends.fp32_precision = before


def networks():
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3))
    return linear, nn.Sequential(nn.Conv1d(2, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(18, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_differences_are_taken_as_in_16_bits(switches, monkeypatch, caplog, dtype):
    monkeypatch.setattr("f3eo.closure.tf32.DEVICES", {"cpu"})
    switches[1].fp32_precision = "tf32"  # as torch has it
    x, y = torch.randn(6, 2, 8, dtype=dtype), torch.randint(3, (6,))
    for model in networks():
        model.to(dtype)
        coarse = isinstance(model[0], nn.Conv1d) and dtype is torch.float32

        def losses(x, y, model=model):
            return F.cross_entropy(model(x), y, reduction="none")

        assert (contents(losses(x, y).sum()).unit == UNIT) == coarse
        parameters = list(model.parameters())
        problem = Problem(losses, (x, y), parameters, [True] * 4, model)
        caplog.clear()
        with caplog.at_level(logging.INFO, "f3eo"):
            estimator = PerSample(FiniteDifference())
            estimator.gradients(problem)
            central = PerSample(FiniteDifference(central=True))
            found = central.gradients(problem)
        assert caplog.text.count("16 bits or TF32") == coarse
        assert estimator.takes_differences != coarse and central.takes_differences
        assert (float(found.error) > 1e-3) == coarse
