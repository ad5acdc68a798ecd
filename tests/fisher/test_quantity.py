"""Emphasis on samples and held residuals, against the loop over samples and closed forms."""

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cases import MODELS, Case, case
from dense import flat, truth
from f3eo import (
    ByFit,
    ByMisfit,
    ByRow,
    Categorical,
    DoubleBackward,
    FiniteDifference,
    Gaussian,
    ModelSampled,
    PerSample,
)
from f3eo.closure.problem import Problem

ENGINES = [(DoubleBackward(), 1e-7), (FiniteDifference(), 5e-5)]
ids = ["twice", "differences"]
GRAPH = {"create_graph": True, "allow_unused": True, "materialize_grads": True}


def problem_of(row: Case) -> Problem:
    parameters = [p for p in row.model.parameters() if p.requires_grad]
    return Problem(row.drawn, row.batch, parameters, [True] * len(parameters), row.model)


def structure(estimator: PerSample, problem: Problem) -> Tensor:
    return torch.cat([h.flatten() for h in estimator.gradients(problem).structure])


def held_structure(row: Case, parameters: list[Tensor], power: float) -> Tensor:
    """(1/B) Σ_i ‖g_i‖^(p−2) (Σ_c r_ic ∇²f_ic) g_i, one sample at a time."""
    count, total = len(row.batch[0]), 0.0
    for i in range(count):
        with sdpa_kernel(SDPBackend.MATH):
            likelihood = row.drawn(*(t[i : i + 1] for t in row.batch))
        f = likelihood.parameters
        (r,) = torch.autograd.grad(likelihood.losses().sum(), f, retain_graph=True)
        g = flat(torch.autograd.grad((r.detach() * f).sum(), parameters, **GRAPH))
        along = g.detach() * g.detach().norm() ** (power - 2) / count
        options = {"allow_unused": True, "materialize_grads": True}
        total = total + flat(torch.autograd.grad(g, parameters, along, **options))
    return total


@pytest.mark.parametrize("name", ["mlp", "regression", "cnn", "attention", "tied"])
@pytest.mark.parametrize(("engine", "tolerance"), ENGINES, ids=ids)
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_held_residuals_leave_the_curvature_of_the_outputs(name, engine, tolerance, power, caplog):
    caplog.set_level(logging.INFO, logger="f3eo")
    row = case(name)
    problem = problem_of(row)
    h = structure(PerSample(engine, power=power, hold_residuals=True), problem)
    expected = held_structure(row, problem.parameters, power)
    free = structure(PerSample(engine, power=power), problem)
    assert (h - expected).norm() <= tolerance * free.norm()
    assert not [r for r in caplog.records if "instead of finite diff" in r.message]
    assert (h - free).norm() > 0.05 * free.norm()


def test_held_residuals_change_neither_loss_nor_trace_nor_gradient():
    problem = problem_of(case("mlp"))
    free = PerSample().gradients(problem)
    held = PerSample(hold_residuals=True).gradients(problem)
    assert torch.allclose(held.loss, free.loss) and torch.allclose(held.trace, free.trace)
    for a, b in zip(held.gradient, free.gradient, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("likelihood", [Categorical, Gaussian])
@pytest.mark.parametrize(("engine", "_"), ENGINES, ids=ids)
def test_outputs_linear_in_the_parameters_have_none(likelihood, engine, _):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    y = torch.randint(3, (6,)) if likelihood is Categorical else torch.randn_like(model(x)).detach()
    h = structure(
        PerSample(engine, hold_residuals=True), problem_of(Case(model, (x, y), likelihood))
    )
    free = structure(PerSample(engine), problem_of(Case(model, (x, y), likelihood)))
    assert float(h.norm()) <= 1e-6 * float(free.norm())


def test_held_residuals_need_a_likelihood():
    row = case("mlp")
    parameters = list(row.model.parameters())
    problem = Problem(row.losses, row.batch, parameters, [True] * len(parameters), row.model)
    with pytest.raises(TypeError, match="must return Categorical"):
        PerSample(hold_residuals=True).gradients(problem)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("engine", "tolerance"), ENGINES, ids=ids)
@pytest.mark.parametrize("emphasis", [ByFit(), ByMisfit()], ids=repr)
def test_emphasis_weighs_the_samples(name, engine, tolerance, emphasis, caplog):
    caplog.set_level(logging.INFO, logger="f3eo")
    row = case(name)
    problem = problem_of(row)
    for power in (1.0, 2.0):
        h = structure(PerSample(engine, power=power, emphasis=emphasis), problem)
        each = []
        for i in range(len(row.batch[0])):
            sample = [t[i : i + 1] for t in row.batch]
            one = truth(problem.parameters, row.losses, *sample, power=power)
            fit = torch.exp(-one.losses[0])
            each.append(one.structure * (fit if isinstance(emphasis, ByFit) else 1 - fit))
        expected = torch.stack(each).mean(0)
        assert (h - expected).norm() <= tolerance * expected.norm()
    fell_back = [r for r in caplog.records if "instead of finite diff" in r.message]
    assert not fell_back or name == "sequence_first"


def test_parts_join():
    """Metric, power, emphasis and held residuals together, both engines."""
    problem = problem_of(case("cnn"))
    parts = {"metric": ByRow(), "power": 1.5, "emphasis": ByFit(), "hold_residuals": True}
    exact = structure(PerSample(DoubleBackward(), **parts), problem)
    found = structure(PerSample(FiniteDifference(), **parts), problem)
    assert (found - exact).norm() <= 5e-5 * exact.norm()


def test_what_is_no_emphasis_is_refused():
    with pytest.raises(TypeError, match=r"Uniform\(\), ByFit\(\).* received 'fit'"):
        PerSample(emphasis="fit")


@pytest.mark.parametrize("parts", [{"emphasis": ByFit()}, {"hold_residuals": True}])
def test_sampled_labels_take_neither(parts):
    with pytest.raises(ValueError, match="emphasis=Uniform"):
        ModelSampled(PerSample(power=2, **parts))
