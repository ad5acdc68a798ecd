"""The formulas of docs/estimand.md against dense float64 autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD

from dense import flat, hessian, relative, truth
from docs.pages import block, names, prose, run
from f3eo import (
    F3EO,
    Categorical,
    Coupled,
    DoubleBackward,
    Fixed,
    MiniBatch,
    ModelSampled,
    PerSample,
    Sign,
    Weighted,
    fisher_trace,
)
from f3eo.extend import Direct


def problem():
    space = names(dtype=torch.float64)
    return (space[name] for name in ("model", "closure", "x", "y"))


def moved(model, closure, *batch, **options):
    """−Δθ of one step at learning rate 1, in a row."""
    before = flat(list(model.parameters())).detach().clone()
    options = {"rule": Coupled(), "strength": Fixed(1.0), "fraction": 1, "every": 1} | options
    F3EO(model, SGD, lr=1.0, **options).step(closure, *batch)
    return before - flat(list(model.parameters())).detach()


@pytest.mark.parametrize("power", [1, 1.5, 2])
def test_h_is_its_formula_and_the_trace_is_tr_f_for_every_power(power):
    model, closure, x, y = problem()
    dense = truth(model, closure, x, y, power=power)
    estimator = PerSample(DoubleBackward(), power=power)
    trace = fisher_trace(model, closure, x, y, estimator=estimator)[1]
    assert torch.allclose(trace, dense.trace)
    update = moved(model, closure, x, y, estimator=estimator)
    assert torch.allclose(update, dense.gradient + dense.structure)


def test_at_power_2_h_is_half_the_gradient_of_the_trace_and_at_1_that_of_the_mean_norm():
    model, closure, x, y = problem()
    parameters = list(model.parameters())
    rows = []
    for i in range(len(x)):
        loss = closure(x[i : i + 1], y[i : i + 1]).sum()
        rows.append(flat(torch.autograd.grad(loss, parameters, create_graph=True)))
    norms = torch.stack(rows).norm(dim=1)
    half = flat(torch.autograd.grad(0.5 * norms.square().mean(), parameters, retain_graph=True))
    mean = flat(torch.autograd.grad(norms.mean(), parameters))
    assert relative(truth(model, closure, x, y, power=2).structure, half) < 1e-12
    assert relative(truth(model, closure, x, y, power=1).structure, mean) < 1e-12
    assert "h = (1/B) Σ_i H_i ∇ℓ_i = ½ ∇Tr F" in prose("estimand.md")


def test_a_penalty_of_ones_own_with_the_factor_one_half_is_the_gradient_and_h():
    space = names(dtype=torch.float64)
    dense = truth(space["model"], space["closure"], space["x"], space["y"], power=2)
    run(block("estimand.md", containing="0.5 * 0.01 * trace"), space)
    found = flat([p.grad for p in space["model"].parameters()])
    assert torch.allclose(found, dense.gradient + 0.01 * dense.structure)


def test_a_group_that_maximizes_changes_the_sign_of_the_loss_gradient_alone():
    model, closure, x, y = problem()
    dense = truth(model, closure, x, y, power=1)
    before = flat(list(model.parameters())).detach().clone()
    parts = {"estimator": PerSample(DoubleBackward()), "rule": Coupled(), "strength": Fixed(1.0)}
    optimizer = F3EO(model, SGD, lr=1.0, maximize=True, fraction=1, every=1, **parts)
    optimizer.step(lambda x, y: -closure(x, y), x, y)  # the log-likelihood
    update = before - flat(list(model.parameters())).detach()
    assert torch.allclose(update, dense.gradient + dense.structure)


def test_a_sample_with_more_dimensions_is_the_mean_over_them():
    model, _, x, _ = problem()
    closure = lambda x: model(x).square()  # noqa: E731
    dense = truth(model, closure, x)
    assert torch.allclose(fisher_trace(model, closure, x)[1], dense.trace)


def test_weights_of_samples_and_positions_are_their_formulas():
    model, _, x, _ = problem()
    w = torch.rand(6, 3, dtype=torch.float64) + 0.1
    losses = lambda x: model(x).square()  # noqa: E731
    own = w.sum(1)  # w_i
    omega = own / own.sum()
    dense = truth(model, lambda x, w: (losses(x) * w).sum(1) / w.sum(1), x, w, power=2)
    parts = [
        truth(model, lambda x, w: (losses(x) * w).sum(1) / w.sum(1), x[i : i + 1], w[i : i + 1])
        for i in range(6)
    ]
    h = sum(o * part.structure for o, part in zip(omega, parts, strict=True))
    closure = lambda x, w: Weighted(losses(x), w)  # noqa: E731
    trace = fisher_trace(model, closure, x, w)[1]
    assert torch.allclose(trace, omega @ dense.squared_norms)
    update = moved(model, closure, x, w, estimator=PerSample(DoubleBackward(), power=2))
    assert torch.allclose(update, omega @ dense.gradients + h)


def gauss_newton_trace(model, x):
    """Tr (1/B) Σ Jᵀ (diag p − p pᵀ) J, dense."""
    total = torch.zeros((), dtype=x.dtype)
    for row in x:
        z = model(row)
        jacobian = torch.stack(
            [flat(torch.autograd.grad(k, list(model.parameters()), retain_graph=True)) for k in z]
        )
        p = z.detach().softmax(0)
        total += torch.trace(jacobian.T @ (p.diag() - p.outer(p)) @ jacobian)
    return total / len(x)


def test_the_true_trace_is_that_of_the_gauss_newton_matrix():
    model, _, x, y = problem()
    closure = lambda x, y: Categorical(model(x), y)  # noqa: E731
    exact = fisher_trace(model, closure, x, y, estimator=ModelSampled(probes=None))[1]
    assert torch.allclose(exact, gauss_newton_trace(model, x))


def test_the_gradient_of_the_true_trace_has_the_part_of_the_labels():
    """It is that of Σ_ŷ p(ŷ|x) ‖∇ℓ(x, ŷ)‖², p differentiated, too."""
    model, _, x, y = problem()
    parameters = list(model.parameters())
    total = torch.zeros((), dtype=x.dtype)
    for row in x:
        logs = model(row).log_softmax(0)
        for log in logs:
            g = flat(torch.autograd.grad(-log, parameters, create_graph=True))
            total = total + log.exp() * g.square().sum() / len(x)
    expected = flat(torch.autograd.grad(total, parameters))
    closure = lambda x, y: Categorical(model(x), y)  # noqa: E731
    trace = fisher_trace(model, closure, x, y, estimator=ModelSampled(probes=None))[1]
    assert relative(flat(torch.autograd.grad(trace, parameters)), expected) < 1e-10


@pytest.mark.parametrize("balanced", [False, True])
def test_random_signs_have_the_expectation_and_variance_of_the_table(balanced):
    model, closure, x, y = problem()
    dense, draws = truth(model, closure, x, y), 800
    generator = torch.Generator().manual_seed(0)
    estimator = Sign(balanced=balanced)
    values = torch.stack(
        [
            fisher_trace(model, closure, x, y, estimator=estimator, generator=generator)[1].detach()
            for _ in range(draws)
        ]
    )
    gram = dense.gradients @ dense.gradients.T
    if balanced:
        expected = (dense.gradients - dense.gradient).square().sum() / 5
        spread = values.std()
    else:
        expected = dense.trace
        variance = 2 / 36 * (gram.square().sum() - gram.diagonal().square().sum())
        assert float(values.var()) == pytest.approx(float(variance), rel=0.2)
        spread = variance.sqrt()
    assert abs(values.mean() - expected) < 4 * spread / draws**0.5


def test_the_mini_batch_estimate_has_the_bias_of_the_table():
    """Over all batches of two, drawn with replacement from six samples."""
    model, closure, x, y = problem()
    dense, values = truth(model, closure, x, y), []
    for i in range(6):
        for j in range(6):
            index = torch.tensor([i, j])
            values.append(
                fisher_trace(model, closure, x[index], y[index], estimator=MiniBatch())[1].detach()
            )
    expected = (1 - 1 / 2) * dense.gradient.square().sum() + dense.trace / 2
    assert torch.allclose(torch.stack(values).mean(), expected)


def test_the_listing_of_the_source_document_is_direct_with_fixed_2():
    """It steps along ∇‖g‖² = 2 H g."""
    model, closure, x, y = problem()
    h = hessian(list(model.parameters()), F.cross_entropy(model(x), y))
    g = truth(model, closure, x, y).gradient
    update = moved(model, closure, x, y, estimator=MiniBatch(), rule=Direct(), strength=Fixed(2.0))
    assert relative(update, 2 * h @ g) < 1e-10
