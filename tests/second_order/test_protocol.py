"""What every optimizer here owes its user: refusals, randomness, buffers, state, memory."""

import copy
import gc
import io
import pickle
import subprocess
import sys
import warnings
import weakref
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import SGD, lr_scheduler

from cases import case
from f3eo import Categorical
from f3eo.second_order import GaussNewton, LayerwiseGaussNewton, NewtonCG, Report
from second_order.helpers import OPTIMIZERS, Point, trained, weights

NAN = float("nan")
MODEL = nn.Linear(2, 2)
ARGUMENTS = {
    "lr 0": (lambda o: o(MODEL, lr=0.0), ValueError, "lr must be > 0.0, received 0.0"),
    "lr text": (lambda o: o(MODEL, lr="1"), TypeError, "lr must be a number, received '1'"),
    "iterations": (
        lambda o: o(MODEL, max_iterations=0),
        ValueError,
        "max_iterations must be > 0, received 0",
    ),
    "iterations float": (lambda o: o(MODEL, max_iterations=1.5), TypeError, "an integer.*1.5"),
    "tolerance": (lambda o: o(MODEL, tolerance=2.0), ValueError, r"\(0.0, 1.0\], received 2.0"),
    "tolerance nan": (lambda o: o(MODEL, tolerance=NAN), ValueError, "tolerance.*nan"),
    "on_nonfinite": (
        lambda o: o(MODEL, on_nonfinite="stop"),
        ValueError,
        '"skip" or "raise", received \'stop\'',
    ),
    "no parameters": (lambda o: o([]), ValueError, "empty parameter list"),
    "complex": (
        lambda o: o([torch.zeros(2, dtype=torch.complex64)]),
        ValueError,
        "complex.*view_as_real",
    ),
    "sparse": (lambda o: o([torch.eye(2).to_sparse()]), ValueError, r"to_dense\(\)"),
    "sparse embedding": (
        lambda o: o(nn.Embedding(3, 2, sparse=True)),
        ValueError,
        "sparse gradients.*sparse=False",
    ),
    "foreign": (
        lambda o: o(nn.Linear(2, 2)).add_param_group({"params": [nn.Parameter(torch.zeros(1))]}),
        ValueError,
        "does not belong to the model",
    ),
}


def made(name="newton", **options):
    row = case("mlp")
    return row, OPTIMIZERS[name](row.model, **options)


def bits(model):
    return [(k, v.detach().clone()) for k, v in model.state_dict().items()]


def same(one, two):
    return all(torch.equal(a, b) for (_, a), (_, b) in zip(one, two, strict=True))


# Refusals.


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_bad_arguments_are_refused_with_value_and_cure(name, optimizer):
    make, error, words = ARGUMENTS[name]
    with pytest.raises(error, match=rf"(?s){words}"):
        make(OPTIMIZERS[optimizer])


@pytest.mark.parametrize("value", [0.0, -1.0, NAN])
def test_damping_and_radius_are_positive(value):
    for make, word in (
        (lambda: GaussNewton(MODEL, damping=value), "damping"),
        (lambda: LayerwiseGaussNewton(MODEL, damping=value), "damping"),
        (lambda: NewtonCG(MODEL, radius=value), "radius"),
    ):
        with pytest.raises(ValueError, match=f"{word} must be > 0.0, received {value}"):
            make()
    with pytest.raises(TypeError, match=r"generator.*received 3.*manual_seed"):
        NewtonCG(MODEL, generator=3)


@pytest.mark.parametrize("kind", [GaussNewton, LayerwiseGaussNewton])
def test_gauss_newton_refuses_bare_losses_and_names_the_cure(kind):
    row = case("mlp")
    optimizer, before = kind(row.model), bits(row.model)
    with pytest.raises(TypeError, match=r"Categorical\(logits, targets\).*NewtonCG takes losses"):
        optimizer.step(row.losses, *row.batch)
    assert same(before, bits(row.model)) and optimizer.steps == 0


CLOSURES = {
    "none": (None, TypeError, "needs a function.*received None"),
    "backward": (
        lambda m: (
            lambda x, y: (lambda z: (z.mean().backward(), z)[1])(
                F.cross_entropy(m(x), y, reduction="none")
            )
        ),
        RuntimeError,
        r"called backward\(\)",
    ),
    "detached": (
        lambda m: lambda x, y: F.cross_entropy(m(x), y, reduction="none").detach(),
        ValueError,
        r"detach\(\)",
    ),
    "text": (lambda m: lambda x, y: "loss", TypeError, "received str"),
    "other size": (
        lambda m: lambda x, y: F.cross_entropy(m(x), y, reduction="none")[:2],
        ValueError,
        "batch of 6 samples",
    ),
    "other model": (
        lambda m: lambda x, y: Categorical(MODEL.double()(x[:, :2]), y.clamp(max=1)),
        ValueError,
        "none of the 6 parameters",
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CLOSURES)
def test_bad_closures_are_refused_and_change_nothing(name, optimizer):
    make, error, words = CLOSURES[name]
    row, opt = made(optimizer)
    before = bits(row.model)
    with pytest.raises(error, match=words):
        opt.step(make and make(row.model), *row.batch)
    assert same(before, bits(row.model))
    assert all(p.grad is None for p in row.model.parameters())


# Something is not finite.


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("place", ["the loss", "the gradient", "the curvature"])
def test_what_is_not_finite_is_skipped_counted_or_raised(name, place):
    model = nn.BatchNorm1d(2, momentum=0.5).double()
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randint(2, (6,))

    def closure(x, y):
        z = model(x)
        if place == "the loss":
            z = z * NAN
        else:  # |u|^p at u = 0: slope infinite for p < 1, curvature infinite for 1 < p < 2
            u = (model.bias - model.bias.detach()).abs().clamp(min=0)
            power = 0.5 if place == "the gradient" else 1.5
            z = z + u.pow(power)
        return Categorical(z, y)

    optimizer = OPTIMIZERS[name](model)
    if name != "newton" and place == "the curvature":
        return  # Gauss-Newton has no curvature of the model's own
    before = bits(model)
    with pytest.warns(UserWarning, match=f"^{place} is not finite.*skipped"):
        optimizer.step(closure, x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(closure, x, y)
    assert same(before, bits(model))
    assert (optimizer.steps, optimizer.skipped, optimizer.report) == (0, 2, None)
    raising = OPTIMIZERS[name](model, on_nonfinite="raise")
    with pytest.raises(FloatingPointError, match=place):
        raising.step(closure, x, y)
    assert same(before, bits(model))


# Randomness and buffers.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masks_are_the_same_within_a_step_and_others_in_the_next(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 20), nn.Dropout(0.5), nn.Linear(20, 3)).double()
    masks = []
    model[1].register_forward_hook(lambda m, i, o: masks.append((o == 0).detach()))
    optimizer = OPTIMIZERS[name](model)
    row = case("mlp")
    optimizer.step(lambda x, y: Categorical(model(x), y), *row.batch)
    optimizer.step(lambda x, y: Categorical(model(x), y), *row.batch)
    assert len(masks) == 4  # forward passes: two a step
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("accepted", [True, False])
def test_random_state_and_buffers_are_as_after_one_forward_pass(name, accepted):
    def network():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3)
        ).double()

    x, y = case("mlp").batch
    one, other = network(), network()
    torch.manual_seed(1)
    one(x)
    expected = torch.rand(())
    trust = {"lr": 1e-3} if accepted else {"lr": 1e4}
    optimizer = OPTIMIZERS[name](other, **trust)
    torch.manual_seed(1)
    optimizer.step(lambda x, y: Categorical(other(x), y), x, y)
    assert optimizer.report.accepted is accepted
    assert torch.equal(torch.rand(()), expected)
    for a, b in zip(one.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_closure_that_fails_leaves_everything(name, call):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3))
    model.double()
    x, y = case("mlp").batch
    calls = []

    def closure(x, y):
        calls.append(1)
        found = Categorical(model(x), y)
        if len(calls) == call:
            raise ZeroDivisionError
        return found

    optimizer = OPTIMIZERS[name](model)
    before, random = bits(model), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        optimizer.step(closure, x, y)
    assert same(before, bits(model)) and torch.equal(random, torch.get_rng_state())
    assert optimizer.report is None and optimizer.steps == 0


# Groups and parameters.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_and_unused_parameters_stay_and_gradients_are_not_written(name):
    row, optimizer = case("partly_frozen"), None
    row.model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    optimizer = OPTIMIZERS[name](row.model)
    for p in row.model.parameters():
        p.grad = torch.ones_like(p)
    before = {k: v.clone() for k, v in row.model.state_dict().items()}
    optimizer.step(row.drawn, *row.batch)
    assert optimizer.report.accepted
    for key, p in row.model.named_parameters():
        still = key.startswith("2.") or key == "unused"
        assert torch.equal(before[key], p.detach()) is still
        assert torch.equal(p.grad, torch.ones_like(p))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scheduler_sets_the_learning_rate(name):
    row, optimizer = made(name)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.step(row.drawn, *row.batch)
    scheduler.step()
    before = weights(row.model)
    twin = copy.deepcopy(row)
    whole = OPTIMIZERS[name](twin.model)
    whole.damping, whole.radius = optimizer.damping, optimizer.radius
    optimizer.step(row.drawn, *row.batch)
    whole.step(twin.drawn, *twin.batch)
    assert optimizer.report.accepted and whole.report.accepted
    torch.testing.assert_close(2 * (weights(row.model) - before), weights(twin.model) - before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_float32_and_fused_attention(name):
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    x, y = torch.randn(4, 5, 8), torch.randint(8, (4, 5))
    optimizer = OPTIMIZERS[name](model)
    found = [float(optimizer.step(lambda x, y: Categorical(model(x), y), x, y)) for _ in range(8)]
    assert found[-1] < found[0]
    with sdpa_kernel(SDPBackend.MATH):
        assert Categorical(model(x), y).losses().isfinite().all()


# State.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_saved_and_loaded_optimizer_goes_on_bit_for_bit(name):
    newton = name == "newton"
    options = {"radius": 0.1, "generator": torch.Generator().manual_seed(4)} if newton else {}
    row, optimizer = made(name, **options)
    first = optimizer.damping, optimizer.radius
    for _ in range(4):
        optimizer.step(row.drawn, *row.batch)
    buffer = io.BytesIO()
    torch.save({"m": row.model.state_dict(), "o": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    kept = torch.load(buffer, weights_only=True)
    other, resumed = made(name, **({"generator": torch.Generator()} if newton else {}))
    other.model.load_state_dict(kept["m"])
    resumed.load_state_dict(kept["o"])
    assert (resumed.damping, resumed.radius) == (optimizer.damping, optimizer.radius)
    assert resumed.steps == 4
    assert (optimizer.damping, optimizer.radius) != first
    for _ in range(3):
        optimizer.step(row.drawn, *row.batch)
        resumed.step(other.drawn, *other.batch)
    assert torch.equal(weights(row.model), weights(other.model))
    assert resumed.report == optimizer.report


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_another_optimizers_state_is_refused(name):
    row, optimizer = made(name)
    with pytest.raises(ValueError, match="not a state dict of"):
        optimizer.load_state_dict(SGD(row.model.parameters(), lr=0.1).state_dict())


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_copy_goes_on_alone_and_alike(name, way):
    row, optimizer = made(name)
    optimizer.step(row.drawn, *row.batch)
    both = (row, optimizer)
    other, copied = copy.deepcopy(both) if way == "deepcopy" else pickle.loads(pickle.dumps(both))
    before = weights(row.model)
    copied.step(other.drawn, *other.batch)
    assert torch.equal(before, weights(row.model))
    optimizer.step(row.drawn, *row.batch)
    assert torch.equal(weights(row.model), weights(other.model))
    assert copied.report == optimizer.report


def test_a_report_cannot_be_changed():
    row, optimizer = made()
    optimizer.step(row.drawn, *row.batch)
    assert isinstance(optimizer.report, Report)
    with pytest.raises(AttributeError):
        optimizer.report.ratio = 1.0


# Memory, and what an import costs.


def live():
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_leave_no_tensor_with_the_collector_off(name):
    """Accepted, rejected, skipped and failed ones."""
    row, optimizer = made(name, max_iterations=5)
    calls = []

    def failing(x, y):
        calls.append(1)
        found = row.drawn(x, y)
        if len(calls) % 2 == 0:
            raise ZeroDivisionError
        return found

    def bad(x, y):
        return Categorical(row.model(x) * NAN, y)

    def round_of_steps():
        optimizer.step(row.drawn, *row.batch)
        with suppress(ZeroDivisionError):
            optimizer.step(failing, *row.batch)
        optimizer.step(bad, *row.batch)

    with pytest.warns(UserWarning, match="not finite"):
        round_of_steps()
    gc.collect()
    gc.disable()
    try:
        before = live()
        for _ in range(40):
            round_of_steps()
        assert live() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_itself_is_freed_without_the_collector(name):
    row, optimizer = made(name)
    optimizer.step(row.drawn, *row.batch)
    gc.collect()
    gc.disable()
    try:
        gone = weakref.ref(optimizer)
        del optimizer
        assert gone() is None
    finally:
        gc.enable()


class Tag:
    """Something that a graph can hold."""


class Doubled(torch.autograd.Function):
    """2 x, with a tag in its graph."""

    @staticmethod
    def forward(ctx, x, tag):
        ctx.tag = tag
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g, None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_graph_is_gone_before_the_second_is_made(name):
    """Peak memory is that of one graph, not of two."""
    model = Point(torch.ones(3))
    optimizer, tags, alive = OPTIMIZERS[name](model), [], []

    def closure(x):
        alive.append([tag() is not None for tag in tags])
        tag = Tag()
        tags.append(weakref.ref(tag))
        z = Doubled.apply(model.place, tag).expand(2, 3)
        return Categorical(z.square(), torch.zeros(2, dtype=torch.int64))

    optimizer.step(closure, torch.zeros(2, 1))
    assert alive == [[], [False]] and tags[1]() is None


def test_importing_it_needs_torch_alone():
    program = (
        "import sys, f3eo.second_order as s; "
        "heavy = {'matplotlib', 'polars', 'sklearn', 'scipy', 'curvlinops', 'f3eo.bench'}; "
        "print(sorted(heavy & set(sys.modules)), s.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("[] ['GaussNewton'"), done.stderr
    assert len(trained(case("mlp").model)) == 6
