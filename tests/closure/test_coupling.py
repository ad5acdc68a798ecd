"""Closures that couple the samples of a batch are detected, and their batch is not split."""

import copy
import logging
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from dense import flat, relative
from f3eo import F3EO, Categorical, DoubleBackward, FiniteDifference, PerSample, Sign, Weighted
from f3eo.closure.coupling import Coupling, compare_part
from f3eo.closure.problem import Problem
from f3eo.tensors import filled
from optimizer.reference import diagonal

HALF = torch.arange(4)


def network(dtype=torch.float64, drop=0.0):
    torch.manual_seed(0)
    layers = nn.Linear(5, 8), nn.GroupNorm(2, 8), nn.Tanh(), nn.Dropout(drop), nn.Linear(8, 3)
    return nn.Sequential(*layers).to(dtype)


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randint(3, (8,), generator=generator)


def plain(model):
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


def contrast(model):
    """In-batch negatives, gradients through both sides."""

    def closure(x, y):
        z = F.normalize(model(x), dim=-1)
        return F.cross_entropy(z @ (z + 0.1).T, torch.arange(len(z)), reduction="none")

    return closure


def detached(model):
    """In-batch negatives that are constants: the samples' gradients are their own."""

    def closure(x, y):
        z = F.normalize(model(x), dim=-1)
        return F.cross_entropy(z @ z.detach().T * 3, torch.arange(len(z)), reduction="none")

    return closure


def token_mean(model):
    """Divides by the number of kept samples, times their number."""

    def closure(x, y):
        kept = (y != 0).to(x)
        return F.cross_entropy(model(x), y, reduction="none") * kept * len(x) / kept.sum()

    return closure


def normalised(model):
    """Weights that add up to 1 in every batch."""

    def closure(x, y):
        kept = (y + 1.0).to(x)
        return Weighted(plain(model)(x, y), kept / kept.sum())

    return closure


COUPLED = {f.__name__: f for f in (contrast, detached, token_mean, normalised)}


def summed(model):
    def closure(x, y):
        return Weighted(plain(model)(x, y), y + 1)

    return closure


def slope(model):
    """A derivative in the loss."""

    def closure(x, y):
        x = x.clone().requires_grad_()
        with torch.enable_grad():
            (found,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return found.square().sum(1)

    return closure


def needs_gradients(model):
    def closure(x, y):
        x = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return found.square().sum(1)

    return closure


def likelihood(model):
    return lambda x, y: Categorical(model(x), y)


ALONE = {f.__name__: f for f in (plain, summed, slope, needs_gradients, likelihood)}


def problem(model, closure, *batch):
    parameters = list(model.parameters())
    return Problem(closure, batch, parameters, [True] * len(parameters), model)


@pytest.mark.parametrize("name", COUPLED)
def test_another_loss_in_a_part_is_found(name):
    model = network()
    found = compare_part(problem(model, COUPLED[name](model), *data()), HALF)
    assert found.known and "in the batch of 8 and" in found.difference
    assert found.weighted == (name == "normalised")


def test_what_a_part_alone_raises_is_a_difference():
    """Mixup with a permutation from outside the batch."""
    model, order = network(), torch.arange(8).flip(0)
    asked = problem(model, lambda x, y: plain(model)(x + x[order[: len(x)]], y), *data())
    found = compare_part(asked, HALF)
    assert found.difference.startswith("a part of 4 samples gives IndexError: index 7 is out of")


def test_the_first_sample_is_named_with_both_losses():
    model = network()
    x, y = data()
    y[:] = 1
    y[6] = 0
    closure = token_mean(model)
    index = torch.tensor([6, 2, 0])
    found = compare_part(problem(model, closure, x, y), index)
    whole, part = closure(x, y).tolist(), closure(x[index], y[index]).tolist()
    assert found.difference == (
        f"sample 2 has loss {whole[2]:.6g} in the batch of 8 and {part[1]:.6g} in a part of 3"
    )


@pytest.mark.parametrize("drop", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ALONE)
def test_losses_of_single_samples_are_no_coupling(name, dtype, drop):
    model = network(dtype, drop)
    found = compare_part(problem(model, ALONE[name](model), *data(dtype)), HALF)
    assert found.known and found.difference is None
    assert found.weighted == (name == "summed")


@pytest.mark.parametrize("scale", [1.0, 1e-3, 30.0])
def test_rounding_of_16_bits_inside_is_no_coupling(scale):
    """Autocast in the closure: neither parameters nor losses show it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 100))
    x, y = torch.randn(64, 64), torch.randint(100, (64,))

    def closure(x, y):
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(scale * model(x), y, reduction="none")

    found = compare_part(problem(model, closure, x, y), torch.arange(16))
    assert found.known and found.difference is None


def test_a_closure_that_draws_in_evaluation_mode_is_unknown():
    model = network()

    def closure(x, y):
        return plain(model)(x + torch.randn_like(x), y)

    assert not compare_part(problem(model, closure, *data()), HALF).known


def test_a_closure_with_an_uncovered_random_source_is_unknown():
    model, own = network(), torch.Generator()

    def closure(x, y):
        return plain(model)(x + torch.randn(x.shape, generator=own, dtype=x.dtype), y)

    found = compare_part(problem(model, closure, *data()), HALF)
    assert not found.known and found.difference is None


def test_losses_that_are_not_finite_give_no_comparison():
    model = network()
    closure = lambda x, y: plain(model)(x, y) / (torch.arange(len(x)) < 3)  # noqa: E731
    coupling = Coupling()
    asked = problem(model, closure, *data())
    assert compare_part(asked, HALF) is None
    assert not coupling.check(asked, HALF).known
    assert coupling.check(problem(model, plain(model), *data()), HALF).known


class Restless(nn.Module):
    """Writes buffers, replaces others, applies dropout, and is partly in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.inner = network(drop=0.5)
        self.inner[1].eval()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("late", None)

    def forward(self, x):
        self.count += 1
        self.late = self.count.clone()
        return self.inner(x)


@pytest.mark.parametrize("fails", [False, True])
def test_a_check_leaves_nothing_behind(fails):
    torch.manual_seed(0)
    model = Restless()
    grad = model.inner[0].weight.grad = torch.ones(8, 5, dtype=torch.float64)
    state = torch.get_rng_state()
    modes = [m.training for m in model.modules()]
    count = model.count

    def closure(x, y):
        if fails and len(x) < 8:
            raise KeyboardInterrupt
        return plain(model)(x, y)

    asked = problem(model, closure, *data())
    if fails:
        with pytest.raises(KeyboardInterrupt):
            compare_part(asked, HALF)
    else:
        assert compare_part(asked, HALF).difference is None
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [m.training for m in model.modules()]
    assert model.count is count and count == 0 and model.late is None
    assert model.inner[0].weight.grad is grad and bool((grad == 1).all())


def test_checks_are_made_where_uses_are_a_power_of_sixteen():
    model = network()
    calls = []

    def closure(x, y):
        calls.append(len(x))
        return plain(model)(x, y)

    coupling = Coupling()
    checked = []
    for use in range(1, 260):
        calls.clear()
        coupling.check(problem(model, closure, *data()), HALF)
        if calls:
            assert calls == [8, 4]
            checked.append(use)
    assert checked == [1, 16, 256]
    assert pickle.loads(pickle.dumps(copy.deepcopy(coupling)))._uses == {}


PARTS = {
    "fraction=0.5": lambda o, c, b: o.step(c, *b),
    "chunk=3": lambda o, c, b: o.step(c, *b),
    "a second micro-batch": lambda o, c, b: (o.accumulate(c, *b), o.accumulate(c, *b)),
}
OPTIONS = {"fraction=0.5": {"fraction": 0.5}, "chunk=3": {"chunk": 3, "fraction": 1}}


@pytest.mark.parametrize("estimator", [PerSample, Sign])
@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.parametrize("what", PARTS)
def test_parts_that_were_asked_for_are_refused_with_the_cure(what, name, estimator):
    model = network()
    options = OPTIONS.get(what, {"fraction": 1})
    if name == "contrast" and estimator is PerSample and "micro" in what:
        pytest.skip("refused before: its gradients mix")
    optimizer = F3EO(model, SGD, lr=0.1, estimator=estimator(), **options)
    before = flat(model.parameters()).clone()
    with pytest.raises(ValueError, match=rf"{what} splits.*sample 0 has .*Weighted\(losses"):
        PARTS[what](optimizer, COUPLED[name](model), data())
    assert torch.equal(before, flat(model.parameters()))


@pytest.mark.parametrize("what", PARTS)
def test_parts_of_other_closures_are_taken(what):
    model = network(drop=0.5)
    optimizer = F3EO(model, SGD, lr=0.1, **OPTIONS.get(what, {}))
    for _ in range(6):
        PARTS[what](optimizer, summed(model), data())
        optimizer.zero_grad()


def test_the_default_measures_coupled_samples_on_the_whole_batch(caplog):
    model = network()
    x, y = data()
    losses = detached(model)(x, y)
    parameters = list(model.parameters())
    gradients = torch.stack(
        [flat(torch.autograd.grad(loss, parameters, retain_graph=True)) for loss in losses]
    )
    expected = (diagonal(parameters) * gradients).square().sum(1).mean()
    optimizer = F3EO(model, SGD, lr=0.0, every=1)
    with caplog.at_level(logging.INFO, "f3eo"):
        for _ in range(5):
            loss = optimizer.step(detached(model), x, y)
    assert float(loss) == pytest.approx(float(losses.detach().mean()), rel=1e-12)
    assert float(optimizer.trace) == pytest.approx(float(expected))
    told = [r.message for r in caplog.records if "couples its samples" in r.message]
    assert len(told) == 1 and "sample 0 has loss" in told[0]


# Differences move what is detached, too.
@pytest.mark.parametrize(
    ("name", "engine"),
    [(name, DoubleBackward) for name in ("contrast", "detached", "token_mean")]
    + [(name, FiniteDifference) for name in ("contrast", "token_mean")],
)
def test_signs_take_coupled_samples_together(name, engine):
    """L and ∇L of the whole batch; Tr F and h in the mean over all signs."""
    model = network()
    x, y = (t[:4] for t in data())
    losses = COUPLED[name](model)(x, y)
    parameters = list(model.parameters())

    def gradient(value, **options):
        found = torch.autograd.grad(value, parameters, allow_unused=True, **options)
        return flat(filled(found, parameters))

    own = [gradient(loss, create_graph=True) for loss in losses]
    trace = torch.stack([g.square().sum() for g in own]).mean()
    structure, whole = gradient(0.5 * trace, retain_graph=True), gradient(losses.mean())

    class Given(Sign):
        def signs(self, count, generator):
            return next(self.given)

    signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * 4)
    found = []
    for s in signs:
        estimator = Given(engine())
        estimator.given = iter([s])
        found.append(estimator.gradients(problem(model, COUPLED[name](model), x, y)))
    loss = float(losses.detach().mean())
    assert all(float(f.loss) == pytest.approx(loss, rel=1e-12) for f in found)
    assert all(relative(flat(f.gradient), whole) < 1e-9 for f in found)
    assert float(torch.stack([f.trace for f in found]).mean()) == pytest.approx(
        float(trace.detach())
    )
    mean = torch.stack([flat(f.structure) for f in found]).mean(0)
    assert relative(mean, structure) < (1e-9 if engine is DoubleBackward else 1e-5)
