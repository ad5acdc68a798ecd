"""Nothing is left behind by a step: no tensor, no byte, no cycle for the collector to find."""

import gc
import mmap
import warnings
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from cases import MODELS, WHOLE, case
from f3eo import (
    F3EO,
    Categorical,
    DoubleBackward,
    FiniteDifference,
    MiniBatch,
    ModelSampled,
    PerSample,
    Ratio,
    Sign,
)
from optimizer.helpers import batches

STATM = Path("/proc/self/statm")
RUNS = {
    "defaults": (1000, SGD, dict),
    "exact": (200, SGD, lambda: {"estimator": PerSample(DoubleBackward(), power=2)}),
    "central": (
        200,
        SGD,
        lambda: {"estimator": PerSample(FiniteDifference(central=True), power=2)},
    ),
    "fraction": (200, Adam, lambda: {"fraction": 0.5}),
    "chunks, every": (200, Adam, lambda: {"chunk": 4, "every": 2}),
    "sign, differences": (200, SGD, lambda: {"estimator": Sign(FiniteDifference())}),
    "batch": (200, SGD, lambda: {"estimator": MiniBatch()}),
    "model": (200, Adam, lambda: {"estimator": ModelSampled()}),
    "written out": (
        100,
        SGD,
        lambda: {"estimator": PerSample(DoubleBackward(), memory=1, power=2)},
    ),
    "strength 0": (100, Adam, lambda: {"strength": Ratio(0)}),
}


@contextmanager
def no_collector():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def resident():
    """Bytes of this process in memory."""
    return int(STATM.read_text().split()[1]) * mmap.PAGESIZE


def live():
    # By type: isinstance would wake lazy objects of torch that warn about themselves.
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def made(base, options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3))
    return model, F3EO(model, base, lr=0.01, **WHOLE | options)


def closure(model):
    return lambda x, y: Categorical(model(x), y)


@pytest.mark.parametrize("name", RUNS)
def test_steps_leave_nothing_with_the_collector_off(name):
    """Cycles of parameters, gradients and graphs show as live tensors, others as objects."""
    steps, base, options = RUNS[name]
    model, optimizer = made(base, options())
    function, batch = closure(model), batches(1, 8, torch.float32)[0]
    for _ in range(3):
        optimizer.step(function, *batch)
    with no_collector():
        before, objects = live(), len(gc.get_objects())
        for _ in range(steps):
            optimizer.step(function, *batch)
        after, grown = live(), len(gc.get_objects()) - objects
    assert after == before
    assert grown < steps / 2


@pytest.mark.parametrize("name", MODELS)
def test_no_weights_of_single_samples_outlive_a_step(name):
    """Whatever form they take: outer products, rows, written out, views, reparametrisations."""
    row = case(name)
    optimizer = F3EO(row.model, SGD, lr=0.01, fraction=1, every=1)
    for _ in range(2):
        optimizer.step(row.losses, *row.batch)
    with no_collector():  # torch.func leaves cycles of its own, which hold no tensor
        before = live()
        for _ in range(10):
            optimizer.step(row.losses, *row.batch)
        after = live()
    assert after == before


def test_accumulated_and_failed_and_skipped_steps_leave_no_tensor():
    model, optimizer = made(Adam, {})
    function, batch = closure(model), batches(1, 8, torch.float32)[0]

    def failing(x, y):
        function(x, y)
        raise ZeroDivisionError

    def bad(x, y):
        return function(x, y).losses() * float("nan")

    def round_of_steps():
        optimizer.accumulate(function, *batch)
        optimizer.accumulate(function, *batch)
        optimizer.step()
        with suppress(ZeroDivisionError):
            optimizer.step(failing, *batch)
        optimizer.step(bad, *batch)

    with pytest.warns(UserWarning, match="not finite"):
        round_of_steps()
    with no_collector():
        before = live()
        for _ in range(50):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # at the 10th
                round_of_steps()
        after = live()
    assert after == before


@pytest.mark.skipif(not STATM.exists(), reason="needs Linux' /proc")
def test_resident_memory_is_flat():
    """Layers large enough to show a leak of one gradient a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 512), nn.Tanh(), nn.Linear(512, 10))
    optimizer = F3EO(model, Adam, lr=1e-3, fraction=1, every=1)
    batch = torch.randn(8, 256), torch.randint(10, (8,))
    function, size = closure(model), 4 * sum(p.numel() for p in model.parameters())
    with no_collector():
        for _ in range(20):
            optimizer.step(function, *batch)
        before = resident()
        for _ in range(100):
            optimizer.step(function, *batch)
        grown = resident() - before
    assert grown < 20 * size


def test_the_optimizer_itself_is_freed_without_the_collector():
    model, optimizer = made(Adam, {})
    optimizer.step(closure(model), *batches(1, 8, torch.float32)[0])
    with no_collector():
        gone = weakref.ref(optimizer)
        del optimizer
        assert gone() is None
