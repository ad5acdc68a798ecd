"""Products with H and G against dense float64 matrices and against curvlinops; G is Fisher's F."""

import pytest
import torch
from torch import nn

import dense
from cases import MODELS, Case, case
from f3eo import Categorical, Gaussian, ModelSampled, fisher_trace
from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem
from f3eo.curvature.empirical_fisher import empirical_fisher
from f3eo.curvature.gauss_newton import gauss_newton
from f3eo.curvature.hessian import hessian
from second_order.helpers import (
    dense_gauss_newton,
    dense_gradient,
    dense_hessian,
    dense_jacobian,
    layer_mask,
    trained,
)


def quadratics(row, blocks=None):
    parameters = trained(row.model)
    problem = Problem(row.drawn, row.batch, parameters, [True] * len(parameters), row.model)
    output = evaluate(problem, per_sample=True, differentiable=True)
    blocks = blocks or [list(range(len(parameters)))]
    return hessian(output, parameters), gauss_newton(output, parameters, blocks)


def matrix(quadratic):
    """B, column by column."""
    unit = torch.eye(len(quadratic.gradient), dtype=torch.float64)
    return torch.stack([quadratic.product(column) for column in unit], 1)


def sampled(model, seed=3):
    """Three random directions."""
    size = sum(p.numel() for p in trained(model))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", MODELS)
def test_the_hessian_is_the_dense_one(name):
    row = case(name)
    found, _ = quadratics(row)
    expected = dense_hessian(row)
    assert dense.relative(found.gradient, dense_gradient(row)) < 1e-12
    for v in sampled(row.model):
        assert dense.relative(found.product(v), expected @ v) < 1e-11


@pytest.mark.parametrize("name", MODELS)
def test_the_gauss_newton_matrix_is_the_dense_one(name):
    row = case(name)
    _, (found,) = quadratics(row)
    expected = dense_gauss_newton(row)
    assert dense.relative(found.gradient, dense_gradient(row)) < 1e-12
    for v in sampled(row.model):
        assert dense.relative(found.product(v), expected @ v) < 1e-11


@pytest.mark.parametrize("name", ["mlp", "attention", "no_rules"])
def test_blocks_are_the_blocks_of_the_matrix(name):
    row = case(name)
    count = len(trained(row.model))
    blocks = [list(range(0, count, 2)), list(range(1, count, 2))]
    _, found = quadratics(row, blocks)
    whole = dense_gauss_newton(row)
    sizes = [p.numel() for p in trained(row.model)]
    ranges = torch.arange(sum(sizes)).split(sizes)
    for block, quadratic in zip(blocks, found, strict=True):
        index = torch.cat([ranges[i] for i in block])
        expected = whole[index][:, index]
        v = sampled(row.model)[0][index]
        assert dense.relative(quadratic.product(v), expected @ v) < 1e-11
        assert dense.relative(quadratic.gradient, dense_gradient(row)[index]) < 1e-12


@pytest.mark.parametrize("likelihood", [Categorical, Gaussian])
def test_curvlinops_agrees(likelihood):
    """An independent oracle: forward mode and vmap, where this package uses backward passes.

    Tanh, since SiLU's second derivative has no forward mode in torch 2.13.
    """
    oracle = pytest.importorskip("curvlinops")
    x, y = (case("mlp") if likelihood is Categorical else case("regression")).batch
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3))
    y = y if likelihood is Categorical else torch.cat([y, y[:, :1]], 1)
    row = Case(model.double(), (x, y), likelihood)
    loss = nn.CrossEntropyLoss() if likelihood is Categorical else nn.MSELoss()
    scale = 1.0 if likelihood is Categorical else 0.5  # ½(y − f)², outputs averaged in both
    own = trained(row.model)
    arguments = (row.model, loss, own, [row.batch])
    found = quadratics(row)
    for quadratic, kind in (
        (found[0], oracle.HessianLinearOperator),
        (found[1][0], oracle.GGNLinearOperator),
    ):
        operator = kind(*arguments)
        for v in sampled(row.model):
            assert dense.relative(quadratic.product(v), scale * (operator @ v)) < 1e-12


# F = G: what makes Gauss-Newton the natural gradient.


def labelled(row, label):
    """Per-sample gradients with every sample's label replaced, (B, P)."""
    x, y = row.batch
    if row.likelihood is Categorical:
        other = Case(row.model, (x, torch.full_like(y, label)))
    else:
        other = Case(row.model, (x, label), Gaussian)
    return dense.truth(row.model, other.losses, *other.batch).gradients


def test_the_fisher_matrix_of_a_categorical_model_is_gauss_newton():
    """F = (1/B) Σ_i Σ_c p(c|x_i) ∇ℓ_i(c) ∇ℓ_i(c)ᵀ, every class in turn."""
    row = case("mlp")
    p = row.model(row.batch[0]).detach().softmax(-1)
    fisher = sum(
        torch.einsum("b,bp,bq->pq", p[:, c], g, g) / len(p)
        for c in range(p.shape[1])
        for g in [labelled(row, c)]
    )
    _, (found,) = quadratics(row)
    assert dense.relative(matrix(found), fisher) < 1e-12


def test_the_fisher_matrix_of_a_gaussian_model_is_gauss_newton_over_its_dimensions():
    """Exact by ŷ = f ± √q e_k over all k, which has the mean and covariance of N(f, 1).

    ℓ averages the two dimensions, w = ½; F has w² where G, the curvature of ℓ, has w.
    """
    row = case("regression")
    f = row.model(row.batch[0]).detach()
    fisher, q = torch.zeros(()), f.shape[1]
    for k in range(q):
        for sign in (1.0, -1.0):
            shift = torch.zeros_like(f)
            shift[:, k] = sign * q**0.5
            g = labelled(row, f + shift)
            fisher = fisher + torch.einsum("bp,bq->pq", g, g) / len(f) / (2 * q)
    _, (found,) = quadratics(row)
    assert dense.relative(matrix(found), q * fisher) < 1e-12


@pytest.mark.parametrize("name, positions", [("mlp", 1), ("regression", 2), ("attention", 5)])
def test_its_trace_is_the_fisher_trace_times_the_positions(name, positions):
    row = case(name)
    _, (found,) = quadratics(row)
    _, trace = fisher_trace(row.model, row.drawn, *row.batch, estimator=ModelSampled(probes=None))
    assert dense.relative(matrix(found).trace(), positions * trace) < 1e-11


def test_gauss_newton_and_hessian_differ_by_the_curvature_of_the_model():
    """H = G + (1/B) Σ_i Σ_k (∂ℓ_i/∂f_k) ∇²f_k: equal where f is linear, and different here."""
    row = case("mlp")
    linear = Case(nn.Linear(5, 3).double(), row.batch)
    newton, (gauss,) = quadratics(linear)
    assert dense.relative(matrix(newton), matrix(gauss)) < 1e-12
    newton, (gauss,) = quadratics(row)
    assert dense.relative(matrix(newton), matrix(gauss)) > 0.1


# Corners.


def test_a_loss_linear_in_a_parameter_or_without_it_has_zero_rows():
    slope, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    problem = Problem(lambda x: x @ slope, (torch.ones(4, 2),), [slope, unused])
    found = hessian(evaluate(problem, per_sample=True, differentiable=True), [slope, unused])
    assert torch.equal(found.product(torch.ones(5)), torch.zeros(5))
    assert torch.equal(found.gradient, torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))


def test_an_unused_parameter_has_zero_rows_in_gauss_newton():
    used, unused = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))
    x, y = torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)
    problem = Problem(lambda x, y: Categorical(x @ used, y), (x, y), [used, unused])
    output = evaluate(problem, per_sample=True, differentiable=True)
    both, alone = gauss_newton(output, [used, unused], [[0, 1], [1]])
    found = both.product(torch.ones(9))
    assert found.isfinite().all() and not found[6:].any()
    assert not alone.product(torch.ones(3)).any() and not alone.gradient.any()


def test_losses_that_depend_on_nothing_are_refused():
    row = case("mlp")
    other = [nn.Parameter(torch.ones(2))]
    output = evaluate(Problem(row.drawn, row.batch, other), per_sample=True, differentiable=True)
    with pytest.raises(ValueError, match="none of the 1 parameters"):
        hessian(output, other)
    with pytest.raises(ValueError, match="none of the 1 parameters"):
        gauss_newton(output, other, [[0]])


def test_layers_are_modules():
    """The mask that the tests of LayerwiseGaussNewton use, checked on a model known by hand."""
    mask = layer_mask(nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1)))
    assert torch.equal(mask, torch.block_diag(torch.ones(3, 3), torch.ones(2, 2)).bool())
    assert dense_jacobian(case("mlp")).shape[:2] == (6, 3)


def test_the_empirical_fisher_matrix_is_the_mean_of_squared_gradients_of_samples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    parameters = list(model.parameters())

    def losses(x, y):
        return (model(x) - y).square().sum(1)

    problem = Problem(losses, (x, y), parameters, [True] * len(parameters), model)
    found = empirical_fisher(evaluate(problem, per_sample=True, differentiable=True), parameters)
    rows = []
    for i in range(5):
        own = torch.autograd.grad(losses(x[i : i + 1], y[i : i + 1]).sum(), parameters)
        rows.append(torch.cat([g.flatten() for g in own]))
    each = torch.stack(rows)
    assert torch.allclose(found.gradient, each.mean(0), rtol=1e-12)
    assert torch.allclose(matrix(found), each.T @ each / 5, rtol=1e-12, atol=1e-14)
