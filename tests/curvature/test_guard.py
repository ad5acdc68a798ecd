"""MiniBatch and Sign by finite differences, against double backward."""

import copy
import logging
import random
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from cases import case
from dense import flat, hessian, relative
from f3eo import F3EO, DoubleBackward, FiniteDifference, MiniBatch, PerSample, Sign, fisher_trace
from f3eo.closure.graph import contents
from f3eo.closure.problem import Problem
from f3eo.curvature.guard import Coarse, Differs, Guard, NotRepeatable

ESTIMATORS = {"batch": MiniBatch, "sign": Sign, "balanced": lambda e: Sign(e, balanced=True)}
estimators = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
centrals = pytest.mark.parametrize("central", [False, True])


def network(width=8):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3)).double()
    return model, (torch.randn(16, 6).double(), torch.randint(3, (16,)))


def ce(z, y):
    return F.cross_entropy(z, y, reduction="none")


def measured(estimator, model, closure, batch):
    """With the same signs for all."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    signs = torch.Generator().manual_seed(5)
    problem = Problem(closure, batch, parameters, [True] * len(parameters), model, signs)
    return estimator.gradients(problem)


def h(estimator, model, closure, batch):
    return flat(measured(estimator, model, closure, batch).structure)


def told(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "f3eo" and r.levelno > logging.INFO]


# Random numbers.


def seeded():
    own = torch.Generator()
    draws = {
        "numpy": lambda x: torch.tensor(np.random.randn(*x.shape)),
        "random": lambda x: torch.tensor([[random.random() for _ in r] for r in x]).double(),
        "a torch.Generator": lambda x: torch.randn(x.shape, generator=own).double(),
        "torch": lambda x: torch.randn_like(x),
    }

    def seed():
        torch.manual_seed(0), np.random.seed(0), random.seed(0), own.manual_seed(0)

    def states():
        return torch.get_rng_state().sum(), np.random.random(), random.random(), own.get_state()

    return draws, seed, states


@centrals
@estimators
@pytest.mark.parametrize("source", ["numpy", "random", "a torch.Generator", "torch"])
def test_random_numbers_are_those_of_the_first_pass(source, make, central, caplog):
    draws, seed, states = seeded()
    model, batch = network()
    closure = lambda x, y: ce(model(x + 0.3 * draws[source](x)), y)  # noqa: E731
    found = []
    for engine in (FiniteDifference(central=central), DoubleBackward()):
        seed()
        found.append((h(make(engine), model, closure, batch), states()))
    assert relative(found[0][0], found[1][0]) < 1e-5
    for after, expected in zip(found[0][1], found[1][1], strict=True):
        assert np.array_equal(after, expected)
    assert not told(caplog)


@centrals
@estimators
def test_another_function_is_seen_and_left_to_double_backward(make, central, caplog):
    """Numbers from a generator that is neither torch's nor a default one."""
    model, batch = network()
    source, drawn = np.random.default_rng(0), []

    def closure(x, y, fixed=None):
        noise = torch.tensor(source.standard_normal(6)) if fixed is None else fixed
        drawn.append(noise)
        return ce(model(x + 0.3 * noise), y)

    estimator = make(FiniteDifference(central=central))
    for _ in range(3):
        found = h(estimator, model, closure, batch)
        last = drawn[-1]
        expected = h(make(DoubleBackward()), model, partial(closure, fixed=last), batch)
        assert relative(found, expected) < 1e-5
    assert len(told(caplog)) == 1 and "gave other losses" in told(caplog)[0]
    assert estimator.counters() == {"alarms": 3} and estimator.forwards == 9
    drawn.clear()
    h(estimator, model, closure, batch)
    assert len(drawn) == 1 or not isinstance(estimator, MiniBatch)
    estimator.forget()
    assert estimator.forwards == (9 if central else 6) and estimator.counters() == {"alarms": 0}


@estimators
def test_a_pass_that_fails_or_takes_another_way_is_left_to_double_backward(make, caplog):
    model, batch = network()
    expected = h(make(DoubleBackward()), model, lambda x, y: ce(model(x), y), batch)
    start = copy.deepcopy(model.state_dict())

    def closure(x, y):
        if not torch.equal(model[0].weight, start["0.weight"]):
            raise ValueError("moved")
        return ce(model(x), y)

    assert relative(h(make(FiniteDifference()), model, closure, batch), expected) < 1e-12
    assert "failed when run again, ValueError: moved" in told(caplog)[0]
    assert all(torch.equal(v, start[k]) for k, v in model.state_dict().items())


# Custom functions.


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(4 * x) / 4

    @staticmethod
    def backward(ctx, g):
        return g


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.silu(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return g * s * (1 + x * (1 - s))


class ReverseOnce(Reverse):
    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return -g


def through(model, function):
    return lambda x, y: ce(model[2](function(model[1](model[0](x)))), y)


@centrals
@estimators
@pytest.mark.parametrize("function", [Reverse, StraightThrough])
def test_custom_functions_are_left_to_double_backward(function, make, central, caplog):
    """Whose backward is not the derivative of their forward."""
    model, batch = network()
    closure = through(model, function.apply)
    estimator = make(FiniteDifference(central=central))
    expected = h(make(DoubleBackward()), model, closure, batch)
    for _ in range(2):
        assert relative(h(estimator, model, closure, batch), expected) < 1e-12
    assert len(told(caplog)) == 1 and function.__name__ in told(caplog)[0]
    assert estimator.forwards == 9


def test_fused_attention_is_differentiated_twice_where_double_backward_stands_in():
    c = case("attention")

    def closure(x, y):
        return ce(Reverse.apply(c.model(x)).movedim(-1, 1), y)

    assert (
        relative(
            h(MiniBatch(FiniteDifference()), c.model, closure, c.batch),
            h(MiniBatch(DoubleBackward()), c.model, closure, c.batch),
        )
        < 1e-12
    )


@estimators
def test_without_a_second_derivative_differences_stay_and_are_watched(make, caplog):
    model, batch = network()
    estimator = make(FiniteDifference())
    expected = h(make(DoubleBackward()), model, through(model, F.silu), batch)
    for _ in range(2):
        found = h(estimator, model, through(model, Swish.apply), batch)
        assert relative(found, expected) < 1e-5
    assert len(told(caplog)) == 2
    assert "no second derivative" in told(caplog)[1]
    with pytest.raises(RuntimeError, match=r"neither|nor by double backward.*second derivatives"):
        h(make(FiniteDifference()), model, through(model, ReverseOnce.apply), batch)


@pytest.mark.parametrize("make", [MiniBatch, Sign, PerSample])
def test_double_backward_does_not_leave_out_what_is_differentiable_once(make):
    """As torch does in silence: the error stands on no way to a parameter."""
    model, batch = network()
    with pytest.raises(RuntimeError, match=r"once_differentiable.*Swish"):
        h(make(DoubleBackward()), model, through(model, Swish.apply), batch)
    with pytest.raises(RuntimeError, match=r"once_differentiable.*Swish"):
        fisher_trace(model, through(model, Swish.apply), *batch, estimator=make(DoubleBackward()))


# Values without a gradient.


class Cut(nn.Module):
    """A network that holds something of its own constant, in one of several ways."""

    def __init__(self, way):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("mean", torch.zeros(8))
        self.way = getattr(self, way)

    def forward(self, x):
        z = torch.tanh(self.first(x))
        return self.last(self.way(z))

    def detach(self, z):
        return z * z.detach().exp()

    def no_grad(self, z):
        with torch.no_grad():
            scale = torch.softmax(3 * z, 1)
        return z * scale

    def of_several(self, z):
        with torch.no_grad():
            values, index = z.topk(2, 1)
        return z * values.sum(1, keepdim=True) + 0.01 * index.sum(1, keepdim=True)

    def written_over(self, z):
        with torch.no_grad():
            scale = 3 * z
            scale.exp_()
        return z * scale.add_(1)

    def written_into(self, z):
        with torch.no_grad():
            self.mean.mul_(0.5).add_(z.mean(0))
        return z * self.mean

    def item(self, z):
        return z / z.square().mean().item()

    def weight(self, z):
        return z @ self.first.weight @ self.first.weight.detach().T

    def data(self, z):
        return z @ self.first.weight @ self.first.weight.data.T

    def weight_without_grad(self, z):
        with torch.no_grad():
            turned = self.first.weight.t()
        return z @ self.first.weight @ turned

    def zeros(self, z):
        out = torch.zeros_like(z)
        out[:, :4] = z[:, :4]
        return out * z.detach()


WAYS = [
    "detach",
    "no_grad",
    "of_several",
    "written_over",
    "written_into",
    "item",
    "weight",
    "data",
    "weight_without_grad",
    "zeros",
]
MIXING = {"written_into", "item", "weight_without_grad"}


@centrals
@estimators
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_what_has_no_gradient_stays_what_it_was(way, make, central, caplog):
    torch.manual_seed(0)
    model, batch = Cut(way).double(), network()[1]
    closure = lambda x, y: ce(model(x), y)  # noqa: E731
    found = []
    for engine in (FiniteDifference(central=central), DoubleBackward()):
        model.mean.zero_()
        before = [p.clone() for p in model.parameters()]
        found.append((h(make(engine), model, closure, batch), model.mean.clone()))
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert relative(found[0][0], found[1][0]) < 1e-5
    assert torch.equal(found[0][1], found[1][1])
    assert not told(caplog)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in MIXING])
def test_so_it_does_in_the_second_pass_over_single_samples(way, caplog):
    torch.manual_seed(0)
    model, batch = Cut(way).double(), network()[1]
    closure = lambda x, y: ce(model(x), y)  # noqa: E731
    found, exact = (
        h(PerSample(engine), model, closure, batch)
        for engine in (FiniteDifference(), DoubleBackward())
    )
    assert relative(found, exact) < 1e-5
    assert not told(caplog)


@estimators
def test_detached_negatives_of_the_same_batch(make, caplog):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    x = torch.randn(12, 6).double(), torch.randn(12, 6).double()

    def closure(a, b):
        return ce(model(a) @ model(b).detach().T, torch.arange(len(a)))

    found, exact = (h(make(e), model, closure, x) for e in (FiniteDifference(), DoubleBackward()))
    assert relative(found, exact) < 1e-5 and not told(caplog)


def test_the_power_iteration_of_a_spectral_norm_stays_where_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(6, 8)), nn.Tanh(), nn.Linear(8, 3)
    )
    model, batch = model.double(), network()[1]
    state, found = copy.deepcopy(model.state_dict()), []
    for engine in (FiniteDifference(), DoubleBackward()):
        model.load_state_dict(state)
        found.append(h(MiniBatch(engine), model, lambda x, y: ce(model(x), y), batch))
    assert relative(*found) < 1e-5


OUT_OF_SIGHT = {
    "a checkpoint": lambda m, x: m.last(checkpoint(m.detach, m.first(x), use_reentrant=False)),
    "torch.func": lambda m, x: m.last(torch.vmap(lambda v: v * v.detach().exp())(m.first(x))),
    "overwritten": lambda m, x: m.last(written_after(m.first(x))),
    "hook": lambda m, x: m.last(hooked(m.first(x))),
}


def written_after(z):
    z = z.tanh() * 2
    fixed = z.detach()
    early = fixed * 3
    z = F.leaky_relu(z, 0.1, inplace=True)
    return z * early


def hooked(z):
    z.register_hook(lambda g: 2 * g * g)
    return z.tanh()


@estimators
@pytest.mark.parametrize("way", OUT_OF_SIGHT)
def test_where_it_cannot_be_held_double_backward_stands_in(way, make, caplog):
    torch.manual_seed(0)
    model, batch = Cut("detach").double(), network()[1]
    closure = lambda x, y: ce(OUT_OF_SIGHT[way](model, x), y)  # noqa: E731
    found, exact = (
        h(make(e), model, closure, batch) for e in (FiniteDifference(), DoubleBackward())
    )
    assert relative(found, exact) < 1e-12
    assert len(told(caplog)) == 1 and way in told(caplog)[0]


# Hooks on the gradients of parameters.


@pytest.mark.parametrize("engine", [FiniteDifference(), DoubleBackward()])
@estimators
def test_hooks_on_gradients_of_parameters_are_refused(make, engine):
    """h would go through them once by differences and twice by double backward."""
    model, batch = network()
    handle = model[0].weight.register_hook(lambda g: 0.5 * g)
    with pytest.raises(ValueError, match=r"0\.weight has a hook.*remove it.*max_norm"):
        h(make(engine), model, lambda x, y: ce(model(x), y), batch)
    with pytest.raises(ValueError, match=r"0\.weight has a hook"):
        problem = Problem(
            lambda x, y: ce(model(x), y), batch, list(model.parameters()), [True] * 4, model
        )
        make(engine).trace(problem)
    handle.remove()
    h(make(engine), model, lambda x, y: ce(model(x), y), batch)


# Compiled models.


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@estimators
def test_what_a_compiled_model_holds_constant_stays_what_it_was(make, backend, caplog):
    """It runs as it is written: a graph hides detach() and has no second derivative."""
    torch.manual_seed(0)
    model, batch = Cut("no_grad").double(), network()[1]
    expected = h(make(DoubleBackward()), model, lambda x, y: ce(model(x), y), batch)
    compiled = nn.Sequential(torch.compile(model, backend=backend))
    compiled(batch[0]).sum().backward()  # compiled by now
    compiled.zero_grad()
    found = h(make(FiniteDifference()), compiled, lambda x, y: ce(compiled(x), y), batch)
    assert relative(found, expected) < 1e-5
    assert not told(caplog)


def test_what_torch_compiles_is_no_custom_function():
    model, batch = network()
    found = torch.compile(model, backend="aot_eager")(batch[0]).sum()
    assert contents(found).custom == []
    assert contents(Reverse.apply(found)).custom == ["Reverse"]


# The expected error.


@centrals
@estimators
@pytest.mark.parametrize("name", ["mlp", "regression", "attention"])
def test_the_expected_error_is_that_of_single_precision(name, make, central):
    double = case(name)
    exact = h(make(DoubleBackward()), double.model, double.losses, double.batch)
    single = copy.deepcopy(double.model).float()
    batch = tuple(t.float() if t.is_floating_point() else t for t in double.batch)
    c = type(double)(single, batch, double.likelihood)
    for engine in (FiniteDifference(central=central), DoubleBackward()):
        found = measured(make(engine), single, c.losses, batch)
        error = relative(flat(found.structure).double(), exact)
        assert error / 10 < float(found.error) < 100 * error


def test_the_user_reads_the_expected_error():
    model, batch = network()
    closure = lambda x, y: ce(model(x), y)  # noqa: E731
    for estimator in (PerSample(), MiniBatch(FiniteDifference()), Sign()):
        optimizer = F3EO(model, torch.optim.SGD, lr=0.1, estimator=estimator, fraction=1, every=2)
        assert optimizer.structure_error is None
        optimizer.step(closure, *batch)
        first = optimizer.structure_error
        assert isinstance(first, float) and 0 < first < 1e-5
        optimizer.step(closure, *batch)  # measures no h
        assert optimizer.structure_error == first


@estimators
def test_the_product_is_that_of_the_dense_hessian(make):
    """So that double backward, which everything here is held against, is right itself."""
    model, batch = network()
    for engine, tolerance in ((FiniteDifference(), 1e-5), (DoubleBackward(), 1e-10)):
        found = measured(MiniBatch(engine), model, lambda x, y: ce(model(x), y), batch)
        matrix = hessian(list(model.parameters()), ce(model(batch[0]), batch[1]).mean())
        assert relative(flat(found.structure), matrix @ flat(found.gradient)) < tolerance


# The decision itself.


def without_derivative():
    raise NotImplementedError("derivative for f is not implemented")


def test_a_refusal_that_nothing_overrules_ends_in_an_error_with_the_cure():
    """Also where differences are forced and refuse again: a `Refusal` never reaches the user."""
    guard = Guard(Coarse, cure=", or estimator=Sign()")

    def by_differences(forced):
        raise Differs("other losses") if forced else Coarse("too coarse")

    with pytest.raises(RuntimeError, match=r"other losses.*not implemented.*, or estimator=Sign"):
        guard.compute(by_differences, without_derivative)
    assert guard.allows_differences and (guard.coarse, guard.alarms) == (1, 0)


@pytest.mark.parametrize(
    ("refusal", "batches", "counts"),
    [
        (NotRepeatable("custom"), 1, (0, 0)),
        (Coarse("coarse"), 3, (3, 0)),
        (Differs("differs"), 3, (0, 3)),
    ],
)
def test_differences_are_left_for_good_after_this_many_batches(refusal, batches, counts, caplog):
    guard, tried = Guard(NotRepeatable, cure=""), []

    def by_differences(forced):
        tried.append(forced)
        raise refusal

    with caplog.at_level(logging.INFO, "f3eo"):
        for _ in range(5):
            assert guard.compute(by_differences, lambda: 7) == 7
    assert len(tried) == batches and (guard.coarse, guard.alarms) == counts
    assert len(caplog.records) == 1
    guard.reset({"coarse": 3})
    assert not guard.allows_differences
    guard.reset()
    assert guard.allows_differences


def test_a_mismatch_that_does_not_count_leaves_differences_on():
    guard = Guard(NotRepeatable, cure="")

    def by_differences(forced):
        raise Differs("numpy", counts=False)

    for _ in range(5):
        guard.compute(by_differences, lambda: None)
    assert guard.allows_differences and guard.alarms == 0
