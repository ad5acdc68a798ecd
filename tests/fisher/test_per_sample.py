"""The exact trace and everything that comes with it, against one sample at a time in float64."""

import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import MODELS, case
from dense import flat, relative, truth
from exact import ENGINES
from f3eo import DoubleBackward, FiniteDifference, MiniBatch, PerSample, Sign, fisher_trace
from f3eo.closure.problem import Problem
from f3eo.extend import Dense, register_layer
from f3eo.fisher.ghost.registry import RULES

EXACT = 1e-10


def problem(case, structured=None):
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    structured = structured or [True] * len(parameters)
    return Problem(case.losses, case.batch, parameters, structured, case.model)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("memory", [2**28, 1])
@pytest.mark.parametrize(("engine", "tolerance"), ENGINES)
def test_gradient_trace_and_structure_equal_the_dense_truth(name, memory, engine, tolerance):
    c = case(name)
    expected = truth(c.model, c.losses, *c.batch)
    found = PerSample(engine, memory=memory, power=2).gradients(problem(c))
    assert relative(found.loss, expected.losses.mean()) < EXACT
    assert relative(flat(found.gradient), expected.gradient) < EXACT
    assert relative(found.trace, expected.trace) < EXACT
    assert relative(flat(found.structure), expected.structure) < tolerance


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("engine", "tolerance"), ENGINES)
def test_a_second_batch_takes_the_layouts_found_on_the_first(name, engine, tolerance):
    c, estimator = case(name), PerSample(engine, power=2)
    estimator.gradients(problem(c))
    shuffled = tuple(t.flip(0)[:-1] for t in c.batch)  # another batch size, too
    expected = truth(c.model, c.losses, *shuffled)
    found = estimator.gradients(
        Problem(
            c.losses,
            shuffled,
            [p for p in c.model.parameters() if p.requires_grad],
            problem(c).structured,
            c.model,
        )
    )
    assert relative(flat(found.gradient), expected.gradient) < EXACT
    assert relative(found.trace, expected.trace) < EXACT
    assert relative(flat(found.structure), expected.structure) < tolerance


@pytest.mark.parametrize("name", MODELS)
def test_per_sample_norms_of_every_sample(name):
    c = case(name)
    ghost = PerSample(DoubleBackward(), power=2).record(problem(c))
    norms = ghost.norms(ghost.losses).squared
    assert relative(norms, truth(c.model, c.losses, *c.batch).squared_norms) < EXACT


@pytest.mark.parametrize("name", MODELS)
def test_batch_of_one(name):
    c = case(name)
    one = tuple(t[:1] for t in c.batch)
    losses, trace = fisher_trace(c.model, c.losses, *one)
    expected = truth(c.model, c.losses, *one)
    assert relative(losses, expected.losses) < EXACT
    assert relative(trace, expected.trace) < EXACT


@pytest.mark.parametrize("name", ["mlp", "cnn", "attention", "no_rules"])
def test_empty_batch_has_trace_zero(name):
    c = case(name)
    losses, trace = fisher_trace(c.model, c.losses, *(t[:0] for t in c.batch))
    assert losses.shape == (0,) and float(trace.detach()) == 0.0


@pytest.mark.parametrize("name", ["mlp", "cnn", "attention"])
def test_excluded_parameters_count_in_the_gradient_only(name):
    c = case(name)
    full = problem(c)
    structured = [i % 2 == 0 for i in range(len(full.parameters))]
    found = PerSample(DoubleBackward(), power=2).gradients(problem(c, structured))
    chosen = [p for p, s in zip(full.parameters, structured, strict=True) if s]
    expected = truth(chosen, c.losses, *c.batch)
    assert relative(found.trace, expected.trace) < EXACT
    assert relative(flat(found.structure), expected.structure) < EXACT
    everything = truth(c.model, c.losses, *c.batch)
    assert relative(flat(found.gradient), everything.gradient) < EXACT


@pytest.mark.parametrize("name", ["mlp", "cnn", "attention", "no_rules"])
def test_the_trace_is_differentiable_in_a_loop_of_ones_own(name):
    c = case(name)
    losses, trace = fisher_trace(c.model, c.losses, *c.batch)
    (losses.mean() + 0.5 * 0.3 * trace).backward()
    expected = truth(c.model, c.losses, *c.batch)
    gradient = flat([p.grad for p in c.model.parameters() if p.requires_grad])
    assert relative(gradient, expected.gradient + 0.3 * expected.structure) < EXACT


@pytest.mark.parametrize("name", ["mlp", "cnn", "attention", "sequence_first"])
def test_a_closure_that_holds_its_batch_itself(name):
    c = case(name)
    _, trace = fisher_trace(c.model, lambda: c.losses(*c.batch))
    assert relative(trace, truth(c.model, c.losses, *c.batch).trace) < EXACT


def test_parameters_alone_are_enough():
    c = case("attention")
    _, trace = fisher_trace(list(c.model.parameters()), c.losses, *c.batch)
    assert relative(trace, truth(c.model, c.losses, *c.batch).trace) < EXACT


def test_a_penalty_on_the_weights_belongs_to_every_sample():
    c = case("mlp")

    def closure(x, y):
        return c.losses(x, y) + 0.1 * sum(p.square().sum() for p in c.model.parameters())

    _, trace = fisher_trace(c.model, closure, *c.batch)
    assert relative(trace, truth(c.model, closure, *c.batch).trace) < EXACT


def test_gradgradcheck_of_the_trace():
    c = case("mlp")
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    x, y = c.batch[0][:3, :3], c.batch[1][:3] % 2

    def trace(*parameters):
        named = dict(zip(dict(model.named_parameters()), parameters, strict=True))

        def closure(x, y):
            z = torch.func.functional_call(model, named, (x,))
            return F.cross_entropy(z, y, reduction="none")

        return fisher_trace(parameters, closure, x, y)[1]

    leaves = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(trace, leaves)


# What is refused, and what is said.


class Mixing(nn.Module):
    """Subtracts the mean over the batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        z = self.layer(x)
        return z - z.mean(0)


def test_samples_that_mix_are_refused_by_name():
    c = case("mlp")
    model = Mixing().double()
    with pytest.raises(ValueError, match=r"linear.*mixes the 6 samples"):
        fisher_trace(model, _losses(model), *c.batch)


def _losses(model):
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


@pytest.mark.parametrize(
    "estimator",
    [PerSample(DoubleBackward(), power=2), Sign(), MiniBatch(), MiniBatch(FiniteDifference())],
)
def test_a_closure_that_uses_another_model_is_refused(estimator):
    c, other = case("mlp"), case("mlp", seed=1)
    with pytest.raises(ValueError, match="depend on none of the 6 parameters"):
        estimator.gradients(
            Problem(other.losses, c.batch, problem(c).parameters, [True] * 6, c.model)
        )


class Hidden(torch.autograd.Function):
    """x·w out of sight of torch functions."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, d):
        x, w = ctx.saved_tensors
        return d * w, (d * x).sum(0)


class Custom(nn.Module):
    """A layer of one's own around an opaque function."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.rand(5))

    def forward(self, x):
        return Hidden.apply(x, self.w)


@pytest.fixture
def custom():
    torch.manual_seed(0)
    return nn.Sequential(Custom(), nn.Linear(5, 3)).double()


def test_a_hidden_use_is_an_error_that_names_the_parameter(custom):
    c = case("mlp")
    with pytest.raises(RuntimeError, match=r"gradients of 0\.w do not add up"):
        fisher_trace(custom, _losses(custom), *c.batch)


def test_a_rule_for_a_module_of_ones_own(custom):
    c = case("mlp")

    @register_layer(Custom)
    def rule(delta, module, x):
        return {"w": Dense((delta * x).sum(1))}

    try:
        _, trace = fisher_trace(custom, _losses(custom), *c.batch)
    finally:
        del RULES[Custom]
    assert relative(trace, truth(custom, _losses(custom), *c.batch).trace) < EXACT


def test_a_wrong_rule_is_an_error(custom):
    c = case("mlp")

    @register_layer(Custom)
    def rule(delta, module, x):
        return {"w": Dense(2 * (delta * x).sum(1))}

    try:
        with pytest.raises(RuntimeError, match="do not add up"):
            fisher_trace(custom, _losses(custom), *c.batch)
    finally:
        del RULES[Custom]


def test_the_fallback_is_logged_with_its_parameters_and_its_cost(caplog):
    c = case("no_rules")
    with caplog.at_level(logging.INFO, "f3eo"):
        fisher_trace(c.model, c.losses, *c.batch)
    assert "bilinear with mix.weight, mix.bias" in caplog.text and "MB" in caplog.text
    assert "slope.weight" in caplog.text


def test_an_input_modified_after_its_use_is_refused():
    model = nn.Linear(5, 5).double()

    def closure(x, y):
        h = torch.sigmoid(x)
        z = model(h)
        h.mul_(2)
        return F.cross_entropy(z, y, reduction="none")

    with pytest.raises(RuntimeError, match="modified"):
        fisher_trace(model, closure, *case("mlp").batch)


def test_no_warnings_and_no_marks_left_behind():
    c = case("attention")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fisher_trace(c.model, c.losses, *c.batch)
    assert all("_f3eo_role" not in t.__dict__ for t in (*c.batch, *c.model.parameters()))


def test_a_first_batch_that_is_not_finite_gives_nan_and_is_not_remembered():
    c, estimator = case("mlp"), PerSample(DoubleBackward(), power=2)
    x, y = c.batch
    bad = x.clone()
    bad[0] = torch.nan
    found = estimator.gradients(Problem(c.losses, (bad, y), *problem_parts(c)))
    assert found.trace.isnan() and all(g.isnan().all() for g in found.gradient)
    expected = truth(c.model, c.losses, x, y)
    assert relative(estimator.gradients(problem(c)).trace, expected.trace) < EXACT


def problem_parts(c):
    p = problem(c)
    return p.parameters, p.structured, p.model


def test_gradients_that_underflow_are_no_error():
    model = nn.Linear(5, 3)
    x, y = torch.randn(6, 5), torch.zeros(6, dtype=torch.long)
    with torch.no_grad():
        model.bias[0] += 60  # the loss is solved: squared norms below 1e-38
    _, trace = fisher_trace(
        model, lambda x, y: F.cross_entropy(model(x), y, reduction="none"), x, y
    )
    assert 0 <= float(trace.detach()) < 1e-30


def test_a_parameter_with_an_entry_for_every_sample_is_refused():
    c = case("mlp")
    weights = torch.ones(6, dtype=torch.float64, requires_grad=True)
    with pytest.raises(NotImplementedError, match="entry for every sample"):
        fisher_trace([weights], lambda x, y: c.losses(x, y).detach() * weights, *c.batch)
