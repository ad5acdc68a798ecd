"""Steps of every optimizer equal the dense ones and never raise the loss."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import dense
from cases import Case, case
from f3eo import Categorical, Gaussian
from f3eo.second_order import GaussNewton, LayerwiseGaussNewton, NewtonCG
from second_order.helpers import (
    EXACT,
    OPTIMIZERS,
    Point,
    dense_gauss_newton,
    dense_gradient,
    dense_hessian,
    layer_mask,
    trained,
    weights,
)

NETS = ["mlp", "regression", "cnn", "attention", "tied", "sequence_first", "partly_frozen"]


def displacement(row, optimizer, closure=None):
    before = weights(row.model)
    optimizer.step(closure or row.drawn, *row.batch)
    assert optimizer.report.accepted
    return weights(row.model) - before


# The step is the dense one.


@pytest.mark.parametrize("name", NETS)
def test_newton_makes_the_dense_newton_step(name):
    """On a loss made convex by ½c‖θ‖²: d = −(H + cI)⁻¹(∇L + cθ)."""
    row = case(name)
    matrix = dense_hessian(row)
    c = 1.0 - float(torch.linalg.eigvalsh(matrix)[0].clamp(max=0))
    expected = -torch.linalg.solve(
        matrix + c * torch.eye(len(matrix), dtype=torch.float64),
        dense_gradient(row) + c * weights(row.model),
    )

    def convex(*batch):
        penalty = sum(p.square().sum() for p in trained(row.model))
        return row.losses(*batch).reshape(len(batch[0]), -1).mean(1) + 0.5 * c * penalty

    optimizer = NewtonCG(row.model, radius=1e6, **EXACT)
    assert dense.relative(displacement(row, optimizer, convex), expected) < 1e-8
    assert optimizer.report.negative_curvature == 0.0


@pytest.mark.parametrize("damping", [0.5, 5.0])
@pytest.mark.parametrize("kind", [GaussNewton, LayerwiseGaussNewton])
@pytest.mark.parametrize("name", NETS)
def test_gauss_newton_makes_the_dense_step(name, kind, damping):
    """d = −(G + λI)⁻¹∇L, layer by layer with the blocks of G alone."""
    row = case(name)
    matrix = dense_gauss_newton(row)
    if kind is LayerwiseGaussNewton:
        matrix = matrix * layer_mask(row.model)
    damped = matrix + damping * torch.eye(len(matrix), dtype=torch.float64)
    expected = -torch.linalg.solve(damped, dense_gradient(row))
    optimizer = kind(row.model, damping=damping, **EXACT)
    assert dense.relative(displacement(row, optimizer), expected) < 1e-8
    assert optimizer.report.damping == damping


def test_several_steps_follow_the_dense_ones_with_the_damping_of_the_report():
    row = case("mlp")
    optimizer = GaussNewton(row.model, **EXACT)
    for _ in range(5):
        matrix, gradient = dense_gauss_newton(row), dense_gradient(row)
        damped = matrix + optimizer.damping * torch.eye(len(matrix), dtype=torch.float64)
        expected = -torch.linalg.solve(damped, gradient)
        promised = float(-gradient @ expected - 0.5 * expected @ matrix @ expected)
        assert dense.relative(displacement(row, optimizer), expected) < 1e-8
        assert optimizer.report.predicted == pytest.approx(promised, rel=1e-8)


def test_learning_rates_scale_the_step_and_the_predicted_reduction_by_group():
    row = case("mlp")
    matrix, gradient = dense_gauss_newton(row), dense_gradient(row)
    damped = matrix + torch.eye(len(matrix), dtype=torch.float64)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (row.model[0], row.model[1:])]
    rates = torch.repeat_interleave(
        torch.tensor([0.5, 0.25], dtype=torch.float64), torch.tensor(sizes)
    )
    expected = -rates * torch.linalg.solve(damped, gradient)
    groups = [
        {"params": row.model[0].parameters(), "lr": 0.5},
        {"params": row.model[1:].parameters()},
    ]
    optimizer = GaussNewton(groups, lr=0.25, damping=1.0, **EXACT)
    assert dense.relative(displacement(row, optimizer), expected) < 1e-8
    promised = float(-gradient @ expected - 0.5 * expected @ matrix @ expected)
    assert optimizer.report.predicted == pytest.approx(promised, rel=1e-8)


def test_a_layer_is_a_parameter_group_where_there_is_no_module():
    row = case("mlp")
    other = case("mlp")
    groups = [{"params": list(other.model[i].parameters())} for i in (0, 2, 4)]
    one = displacement(row, LayerwiseGaussNewton(row.model, **EXACT))
    two = displacement(other, LayerwiseGaussNewton(groups, **EXACT))
    assert torch.equal(one, two)
    single = case("mlp")
    whole = displacement(single, LayerwiseGaussNewton(single.model.parameters(), **EXACT))
    full = case("mlp")
    assert torch.equal(whole, displacement(full, GaussNewton(full.model, **EXACT)))


def test_a_tied_parameter_belongs_to_the_first_module_that_has_it():
    found = []
    for by_hand in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
        model[2].weight = model[0].weight
        row = Case(model, (torch.randn(7, 3, dtype=torch.float64), torch.randint(3, (7,))))
        layers = [{"params": [*model[0].parameters()]}, {"params": [model[2].bias]}]
        optimizer = LayerwiseGaussNewton(layers if by_hand else model, **EXACT)
        found.append(displacement(row, optimizer))
    assert torch.equal(*found)


# A quadratic takes one step.


def least_squares():
    """A linear layer on Gaussian targets: the loss is quadratic and G = H."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 2).double(), torch.randn(12, 4, dtype=torch.float64)
    return Case(model, (x, torch.randn(12, 2, dtype=torch.float64)), Gaussian)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_minimum_of_a_quadratic_is_one_step_away(name):
    row = least_squares()
    trust = {"radius": 1e3} if name == "newton" else {"damping": 1e-10}
    optimizer = OPTIMIZERS[name](row.model, **trust, **EXACT)
    optimizer.step(row.drawn, *row.batch)
    x, y = row.batch
    wide = torch.cat([x, torch.ones(12, 1, dtype=torch.float64)], 1)
    best = torch.linalg.lstsq(wide, y).solution.T
    found = torch.cat([row.model.weight, row.model.bias[:, None]], 1)
    torch.testing.assert_close(found.detach(), best, rtol=1e-8, atol=1e-8)
    assert optimizer.report.ratio == pytest.approx(1.0, abs=1e-6)
    assert dense_gradient(row).norm() < 1e-8


def test_layerwise_reaches_the_minimum_of_a_block_diagonal_quadratic_in_one_step():
    """Two layers side by side, each with outputs of its own."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(4, 2)]).double()
    x, z = (torch.randn(9, k, dtype=torch.float64) for k in (3, 4))
    y = torch.randn(9, 4, dtype=torch.float64)
    optimizer = LayerwiseGaussNewton(model, damping=1e-10, **EXACT)
    optimizer.step(lambda x, z, y: Gaussian(torch.cat([model[0](x), model[1](z)], 1), y), x, z, y)
    for layer, own, part in zip(model, (x, z), (y[:, :2], y[:, 2:]), strict=True):
        wide = torch.cat([own, torch.ones(9, 1, dtype=torch.float64)], 1)
        found = torch.cat([layer.weight, layer.bias[:, None]], 1).detach()
        torch.testing.assert_close(found, torch.linalg.lstsq(wide, part).solution.T)


# Nothing rises; what is rejected leaves nothing behind.


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(list(OPTIMIZERS)), st.integers(0, 10**6), st.floats(0.1, 10), st.booleans())
def test_the_loss_never_rises_and_a_rejected_step_changes_nothing(name, seed, scale, regress):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    x = torch.randn(7, 3, dtype=torch.float64)
    y = torch.randn(7, 2, dtype=torch.float64) if regress else torch.randint(2, (7,))
    row = Case(model, (x, y), Gaussian if regress else Categorical)
    trust = {"radius": 10.0} if name == "newton" else {"damping": 1e-3}
    optimizer = OPTIMIZERS[name](model, **trust)
    for _ in range(6):
        before, held = weights(model), (optimizer.damping, optimizer.radius)
        loss = float(row.drawn(x, y).losses().mean().detach())
        optimizer.step(row.drawn, x, y)
        report = optimizer.report
        after = float(row.drawn(x, y).losses().mean().detach())
        assert report.loss_before == pytest.approx(loss, rel=1e-12)
        if report.accepted:
            assert after <= loss + 1e-12 * abs(loss)
            assert report.loss_after == pytest.approx(after, rel=1e-12, abs=1e-14)
        else:
            assert torch.equal(before, weights(model))
            assert optimizer.damping > held[0] or optimizer.radius < held[1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_too_long_is_taken_back_bit_for_bit_and_damped(name):
    """|θ|^1.2-like valley: the quadratic model overshoots by far."""
    model = Point([3.0, -2.0])
    trust = {"radius": 100.0} if name == "newton" else {"damping": 1e-6}
    optimizer = OPTIMIZERS[name](model, **trust)

    def closure(x):
        mean = torch.tanh(model.place).expand(1, 2)  # flat far out: Newton's step is huge
        return Gaussian(3 * mean + 0.1 * x.sum(), torch.full((1, 2), -1.0, dtype=torch.float64))

    before = weights(model)
    batch = torch.zeros(1, 1, dtype=torch.float64)
    optimizer.step(closure, batch)
    assert not optimizer.report.accepted
    assert optimizer.report.loss_after > optimizer.report.loss_before
    assert torch.equal(before, weights(model))
    if name == "newton":
        assert optimizer.radius < 100.0 / 3.9
    else:
        assert (optimizer.damping, optimizer.growth) == (2e-6, 4.0)
    for _ in range(60):
        optimizer.step(closure, batch)
    assert optimizer.report.loss_after < 1.0  # and it goes on from there


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loss_that_is_not_finite_after_the_step_is_a_rejected_step(name):
    model = Point([2.0])
    trust = {"radius": 100.0} if name == "newton" else {"damping": 1e-9}
    optimizer = OPTIMIZERS[name](model, **trust)

    def closure(x):
        mean = model.place.sqrt().expand(1, 1)  # from 2 the step goes below 0
        return Gaussian(mean, torch.full((1, 1), -3.0, dtype=torch.float64))

    optimizer.step(closure, torch.zeros(1, 1))
    report = optimizer.report
    assert not report.accepted and report.loss_after != report.loss_after
    assert float(model.place.detach()) == 2.0 and optimizer.skipped == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_damping_falls_or_the_region_grows_where_the_model_is_right(name):
    row = least_squares()
    optimizer = OPTIMIZERS[name](row.model, **({"radius": 0.01} if name == "newton" else {}))
    first = optimizer.damping, optimizer.radius
    optimizer.step(row.drawn, *row.batch)
    assert optimizer.report.accepted
    if name == "newton":
        assert optimizer.radius == 2 * first[1]
    else:
        assert optimizer.damping == pytest.approx(first[0] / 3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_trains_a_network_and_stays_at_its_minimum(name):
    """Forty steps on noisy labels with the rest of the losses; then nothing more to gain."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    x, y = torch.randn(40, 4, dtype=torch.float64), torch.randint(3, (40,))
    optimizer = OPTIMIZERS[name](model, tolerance=1e-8)
    for _ in range(60):
        optimizer.step(lambda x, y: Categorical(model(x), y), x, y)
    loss = F.cross_entropy(model(x), y)
    gradient = dense.flat(torch.autograd.grad(loss, list(model.parameters())))
    assert gradient.norm() < 1e-7
    before = weights(model)
    for _ in range(5):
        optimizer.step(lambda x, y: Categorical(model(x), y), x, y)
    assert dense.relative(weights(model), before) < 1e-6
