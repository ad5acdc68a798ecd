"""Emphasis on samples and held residuals, against the loop over samples and closed forms."""

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
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
from f3eo.closure.residuals import outputs_of

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


X, Y = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))
LOSSES = {
    "cross_entropy": lambda f: F.cross_entropy(f, Y, reduction="none"),
    "gathered": lambda f: -f.log_softmax(-1).gather(1, Y[:, None])[:, 0],
    "logsumexp": lambda f: f.logsumexp(-1) - f[torch.arange(6), Y],
    "log of softmax": lambda f: -f.softmax(-1)[torch.arange(6), Y].log(),
    "nll_loss": lambda f: F.nll_loss(f.log_softmax(-1), Y, reduction="none"),
    "tempered": lambda f: F.cross_entropy(f / 2, Y, reduction="none") * 3,
    "smoothed": lambda f: F.cross_entropy(f, Y, reduction="none", label_smoothing=0.1),
    "binary": lambda f: F.binary_cross_entropy_with_logits(
        f, F.one_hot(Y, 3).double(), reduction="none"
    ),
    "squared": lambda f: (f - F.one_hot(Y, 3)).square().mean(1),
    "product": lambda f: (error := f - F.one_hot(Y, 3)) * error,
    "mse_loss": lambda f: F.mse_loss(f, F.one_hot(Y, 3).double(), reduction="none"),
    "huber": lambda f: F.huber_loss(f, F.one_hot(Y, 3).double(), reduction="none", delta=0.3),
    "two": lambda f: (
        F.cross_entropy(f, Y, reduction="none")
        + 0.1 * F.mse_loss(f, F.one_hot(Y, 3).double(), reduction="none").mean(1)
    ),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("engine", "tolerance"), ENGINES, ids=ids)
def test_plain_losses_have_outputs_too(name, engine, tolerance, caplog):
    caplog.set_level(logging.INFO, logger="f3eo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    def closure(x: Tensor) -> Tensor:
        return LOSSES[name](model(x))

    parameters = list(model.parameters())
    problem = Problem(closure, (X,), parameters, [True] * 4, model)
    h = structure(PerSample(engine, power=2, hold_residuals=True), problem)
    f = model(X)
    losses = LOSSES[name](f)
    (r,) = torch.autograd.grad((losses.flatten(1).mean(1) if losses.ndim > 1 else losses).sum(), f)
    expected = 0.0
    for i in range(len(X)):
        g = flat(torch.autograd.grad((r[i] * model(X[i])).sum(), parameters, **GRAPH))
        options = {"allow_unused": True, "materialize_grads": True}
        expected = expected + flat(torch.autograd.grad(g, parameters, g.detach() / 6, **options))
    free = structure(PerSample(engine, power=2), problem)
    assert (h - expected).norm() <= tolerance * free.norm()
    assert not [r for r in caplog.records if "instead" in r.message or "not held" in r.message]


def test_what_is_held_must_be_known(caplog):
    """A focal loss has two factors: which of them is the residual's, no graph tells."""
    caplog.set_level(logging.INFO, logger="f3eo")
    model = nn.Linear(4, 3).double()

    def closure(x: Tensor, y: Tensor) -> Tensor:
        losses = F.cross_entropy(model(x), y, reduction="none")
        return losses * (1 - (-losses).exp()) ** 2

    problem = Problem(closure, (X, Y), list(model.parameters()), [True] * 2, model)
    estimator = PerSample(hold_residuals=True)
    held, free = structure(estimator, problem), structure(PerSample(), problem)
    assert torch.equal(held, free)
    estimator.gradients(problem)
    assert [r.message for r in caplog.records if "not held" in r.message] != []
    assert len([r for r in caplog.records if "not held" in r.message]) == 1


def test_an_auxiliary_classifier_is_not_held():
    """Its outputs stand behind those of the last one; a residual would be counted twice."""
    first, second = nn.Linear(4, 3).double(), nn.Linear(3, 3).double()
    outputs = first(X)
    losses = F.cross_entropy(outputs, Y, reduction="none")
    assert len(outputs_of(losses)) == 1
    assert outputs_of(losses + F.cross_entropy(second(outputs), Y, reduction="none")) is None


def test_the_sum_of_two_heads_is_held_and_their_product_is_not():
    trunk, heads = nn.Linear(4, 3).double(), [nn.Linear(3, 3).double() for _ in range(2)]
    first, second = (F.cross_entropy(head(trunk(X)), Y, reduction="none") for head in heads)
    assert len(outputs_of(first + second)) == 2
    assert outputs_of(first * second) is None


def test_parameters_within_the_loss_are_left_alone():
    """A weight decay inside of the loss: its edge is the parameter itself."""
    model = nn.Linear(4, 3).double()

    def closure(x: Tensor, y: Tensor) -> Tensor:
        decay = model.weight.square().sum()
        return F.cross_entropy(model(x), y, reduction="none") + 0.1 * decay.expand(len(x))

    assert outputs_of(closure(X, Y)) is None


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
