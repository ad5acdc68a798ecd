"""docs/precision.md: its numbers are those of its script, on the smallest of the models."""

import importlib.util
import logging
import re

import pytest
import torch

from docs.pages import ROOT, prose, table
from f3eo import DoubleBackward, FiniteDifference, LossScale

spec = importlib.util.spec_from_file_location("precision", ROOT / "docs" / "precision.py")
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

ERRORS = {tuple(row[:2]): row[2:] for row in table("precision.md", "model")}


@pytest.fixture(scope="module")
def case():
    logging.disable(logging.CRITICAL)
    yield script.models()["MLP"]
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("precision", script.PRECISIONS, ids=lambda p: p.name)
def test_the_errors_are_those_of_the_page(case, precision):
    exact = script.measured(DoubleBackward(), script.EXACT, *case)
    double = script.measured(DoubleBackward(), precision, *case)
    own = script.error(double.gradient, exact.gradient)
    by_torch = script.of_torch(precision, *case, exact.gradient)
    assert own < 1.3 * by_torch + 1e-7
    found = [by_torch, own, None, script.error(double.structure, exact.structure)]
    if precision.dtype not in script.HALF:
        central = script.measured(FiniteDifference(central=True), precision, *case)
        found += [script.error(central.structure, exact.structure), float(central.error)]
        assert found[-2] < 3 * found[-1]
    for said, now in zip(ERRORS["MLP", precision.name], found, strict=False):
        if now is not None:
            assert now / 3 < float(said) < now * 3


def test_every_error_in_the_table_is_as_the_text_says():
    for (_, precision), row in ERRORS.items():
        by_torch, own, trace, h, central, expected = row
        assert float(own) <= 1.5 * float(by_torch) and float(trace) < 5e-3
        if "autocast" in precision:
            assert 2e-3 <= float(central) <= 0.03 and float(central) <= 2 * float(expected)
            assert float(h) < 0.03
    assert "Central ones err by 0.2 to 3 %" in prose("precision.md")


def test_losses_without_a_gradient_in_float16(case):
    (half,) = [p for p in script.PRECISIONS if p.name == "float16 autocast"]
    model, x, y = case
    model.zero_grad()  # of its training
    (1e-7 * script.losses(model, half, x, y)).mean().backward()
    assert not any(p.grad.any() for p in model.parameters())
    exact = script.measured(DoubleBackward(), script.EXACT, *case, 1e-7)
    found = script.measured(DoubleBackward(), half, *case, 1e-7)
    assert script.error(found.gradient, exact.gradient) < 0.005
    assert abs(float(found.trace) / float(exact.trace) - 1) < 0.002
    assert script.error(found.structure, exact.structure) < 0.03
    assert "within 0.5 % of float64, the trace within 0.2 %, h within 3 %" in prose("precision.md")


def test_forward_differences_err_by_what_the_page_says(case):
    """A width of one's own is not replaced in autocast."""
    exact = script.measured(DoubleBackward(), script.EXACT, *case)
    for precision, low, high in (
        (script.PRECISIONS[1], 0.03, 0.07), (script.PRECISIONS[2], 0.01, 0.03)
    ):  # fmt: skip
        steps = [2.0**-k for k in range(2, 12)]
        found = [script.measured(FiniteDifference(step=s), precision, *case) for s in steps]
        assert low < min(script.error(f.structure, exact.structure) for f in found) < high
    assert "forward differences err by 2 to 6 %" in prose("precision.md")


def test_training_in_autocast_is_that_in_float32(monkeypatch):
    rows = {row[0]: row[1:] for row in table("precision.md", "precision") if "," in row[1]}
    told = {name: [float(x) for x in row[0].split(",")] for name, row in rows.items()}
    assert set(told) == {p.name for p in script.PRECISIONS}
    for name, bound in {"bfloat16 autocast": 0.01, "float16 autocast": 0.005}.items():
        for one, single in zip(told[name], told["float32"], strict=True):
            assert abs(one / single - 1) < bound
    monkeypatch.setattr(script, "STEPS", 40)
    single, brain, half = (script.trained(p, 0) for p in script.PRECISIONS[:3])
    assert abs(brain[0] / single[0] - 1) < 0.02 and abs(half[0] / single[0] - 1) < 0.005
    assert half[2] == 0


def test_the_defaults_of_the_scale_are_those_of_the_page():
    scale, said = LossScale(), prose("precision.md")
    assert scale.initial == 2**15 and "S is 2¹⁵ at first" in said
    assert scale.interval == 2000 and "after 2,000 other steps S doubles" in said
    assert scale.backoff == 0.5 and "S halved" in said
    assert re.search(r"9 forward passes instead of 7", said)
    assert FiniteDifference(central=True).forwards + 3 == 9
    assert torch.finfo(torch.float16).smallest_normal * 2**-10 == pytest.approx(6e-8, rel=0.01)
