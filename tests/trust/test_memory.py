"""Memory of every optimizer: its peak stays what it was, and a step leaves nothing."""

import gc

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from trust.helpers import ALL, batches, losses, made, run

pytestmark = pytest.mark.filterwarnings("ignore:F3EO knows no metric of Muon")


def live():
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("name", ALL)
def test_no_tensor_is_left_with_the_collector_off(name):
    model, optimizer = made(name)
    run(model, optimizer, batches(4))
    gc.collect()
    gc.disable()
    try:
        before = live()
        run(model, optimizer, batches(12))
        assert live() == before
    finally:
        gc.enable()


def peak(step):
    """The most bytes of tensors that are alive at once in a call, above those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        step()
    events = measured.profiler.kineto_results.events()
    sizes = [
        e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()) if e.name() == "[memory]"
    ]
    total, most = 0, 0
    for size in sizes:
        total += size
        most = max(most, total)
    return most


@pytest.mark.parametrize("name", ALL)
def test_the_peak_of_memory_is_that_of_the_first_steps(name):
    torch.manual_seed(0)
    bias = name != "muon"
    model = nn.Sequential(nn.Linear(64, 128, bias=bias), nn.Tanh(), nn.Linear(128, 3, bias=bias))
    model, optimizer = made(name, model.double())
    batch = torch.randn(32, 64, dtype=torch.float64), torch.randint(3, (32,))
    for _ in range(4):
        optimizer.step(losses(model), *batch)
    steps = [peak(lambda: optimizer.step(losses(model), *batch)) for _ in range(8)]
    weights = 8 * sum(p.numel() for p in model.parameters())
    assert max(steps[4:]) <= 1.1 * max(steps[:4])
    assert weights < max(steps) < len(batch[0]) * weights  # no gradients of single samples
