"""Products with F̂, G and H over data against dense float64 matrices and curvlinops."""

import pytest
import torch
from torch import nn

import dense
from cases import MODELS, case
from f3eo import Weighted
from f3eo.instruments import Operator
from instruments.spectra import flat, gradients, matrix, parts, seeded

OF = ("fisher", "gauss_newton", "hessian")


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("name", MODELS)
def test_a_product_is_the_dense_one_over_all_batches(name, of):
    row = case(name)
    operator = Operator(row.model, row.drawn, parts(row), of)
    expected = matrix(row, of)
    assert operator.size == len(expected)
    v = torch.randn(2, operator.size, generator=seeded(), dtype=torch.float64)
    assert dense.relative(operator.products(v), v @ expected) < 1e-12
    shaped = torch.split(v[0], [p.numel() for p in operator.parameters])
    shaped = [s.view(p.shape) for s, p in zip(shaped, operator.parameters, strict=True)]
    assert dense.relative(flat(operator.product(shaped)), expected @ v[0]) < 1e-12


@pytest.mark.parametrize("of", OF)
def test_the_dense_matrix(of):
    row = case("mlp")
    assert dense.relative(
        Operator(row.model, row.drawn, parts(row), of).dense(), matrix(row, of)
    ) < (1e-12)


def test_weights_count_over_all_batches():
    row = case("mlp")
    w = torch.tensor([0.0, 2.0, 1.0, 0.5, 3.0, 0.25], dtype=torch.float64)
    rows = gradients(row)
    expected = (rows * w.unsqueeze(1)).mT @ rows / w.sum()

    def closure(x, y, w):
        return Weighted(row.losses(x, y), w)

    data = [(*batch, part) for batch, part in zip(parts(row), (w[:2], w[2:]), strict=True)]
    assert dense.relative(Operator(row.model, closure, data).dense(), expected) < 1e-12


def test_float32_stays_float32():
    row = case("regression")
    truth = matrix(row, "gauss_newton")
    model, data = row.model.float(), [tuple(t.float() for t in row.batch)]
    v = torch.randn(len(truth), generator=seeded())
    found = Operator(model, row.drawn, data, "gauss_newton").product(v)
    assert found.dtype == torch.float32
    assert dense.relative(found.double(), truth @ v.double()) < 1e-5


def test_products_are_of_one_function_under_dropout_and_leave_the_model_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    x = torch.randn(6, 4)
    operator = Operator(model, lambda x: model(x).square(), [x])
    v, state = torch.randn(operator.size), torch.get_rng_state()
    assert torch.equal(operator.product(v), operator.product(v))
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert all(p.grad is None for p in model.parameters())


def test_curvlinops_agrees():
    oracle = pytest.importorskip("curvlinops")
    row = case("mlp")
    row.model[3] = nn.Tanh()  # SiLU's second derivative has no forward mode in torch 2.13
    own = list(row.model.parameters())
    v = torch.randn(sum(p.numel() for p in own), generator=seeded(), dtype=torch.float64)
    for of, kind in zip(
        OF,
        (oracle.EFLinearOperator, oracle.GGNLinearOperator, oracle.HessianLinearOperator),
        strict=True,
    ):
        expected = kind(row.model, nn.CrossEntropyLoss(), own, [row.batch]) @ v
        assert dense.relative(
            Operator(row.model, row.drawn, parts(row), of).product(v), expected
        ) < (1e-12)


def test_what_does_not_fit_is_refused():
    row = case("mlp")
    with pytest.raises(ValueError, match="'fisher', 'gauss_newton', 'hessian', received 'trace'"):
        Operator(row.model, row.drawn, parts(row), "trace")
    with pytest.raises(ValueError, match="has 111 entries"):
        Operator(row.model, row.drawn, parts(row)).product(torch.zeros(5))
    with pytest.raises(TypeError, match="must return a likelihood"):
        Operator(row.model, row.losses, parts(row), "gauss_newton").product(torch.zeros(111))
