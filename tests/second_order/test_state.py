"""State is saved, loaded and copied; a step keeps no tensor; the import needs torch alone."""

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
from torch.optim import SGD

from cases import case
from f3eo import Categorical, Gaussian
from f3eo.second_order import Report
from second_order.helpers import OPTIMIZERS, Point, made, trained, weights

NAN = float("nan")


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
    if newton:
        assert torch.equal(resumed.generator.get_state(), optimizer.generator.get_state())
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


def overshooting(model):
    """A flat far-out place: with little damping many steps in a row are taken back."""
    mean = 3 * torch.tanh(model.place).expand(1, 2)
    return Gaussian(mean, torch.full((1, 2), -1.0, dtype=torch.float64))


@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle"])
@pytest.mark.parametrize("name", ["gauss-newton", "layerwise"])
def test_the_growth_of_the_damping_is_saved_between_rejections(name, way):
    model = Point([3.0, -2.0])
    optimizer = OPTIMIZERS[name](model, damping=1e-6)
    for _ in range(3):
        optimizer.step(lambda: overshooting(model))
        assert not optimizer.report.accepted
    assert optimizer.growth == 16.0 and optimizer.damping == pytest.approx(2 * 4 * 8 * 1e-6)
    if way == "state_dict":
        buffer = io.BytesIO()
        torch.save(optimizer.state_dict(), buffer)
        buffer.seek(0)
        other = Point([3.0, -2.0])
        resumed = OPTIMIZERS[name](other)
        resumed.load_state_dict(torch.load(buffer, weights_only=True))
    else:
        both = (model, optimizer)
        copied = copy.deepcopy(both) if way == "deepcopy" else pickle.loads(pickle.dumps(both))
        other, resumed = copied
    for _ in range(12):
        optimizer.step(lambda: overshooting(model))
        resumed.step(lambda: overshooting(other))
        assert (resumed.damping, resumed.growth) == (optimizer.damping, optimizer.growth)
        assert resumed.report == optimizer.report
    assert torch.equal(weights(model), weights(other))


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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # at the 10th
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
    """An object that a graph holds."""


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
