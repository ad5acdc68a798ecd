"""A strength that vanishes rests: steps measure nothing, and are those of the base."""

import copy

import pytest
import torch
from torch.optim import SGD, AdamW

from f3eo import F3EO, Sensitivity
from f3eo.monitor import Monitor
from optimizer.helpers import batches, bits, everything, network

RESTS = [0, 2, 4, 6, 8, 10, 12, 16, 20, 26, 32, 40, 50]
"""Steps that measure with every=2, as `tests/strength/test_sensitivity.py` derives them."""
FAINT = {"threshold": 4.0}
"""λ is then below a hundredth, and not nothing."""


def made(strength, base=SGD):
    row = network()
    generator = torch.Generator().manual_seed(0)
    optimizer = F3EO(
        row.model, base, lr=0.01, every=2, fraction=0.5, strength=strength, generator=generator
    )
    return row.model, optimizer, row.losses


def trained(strength, base=SGD, steps=60):
    """Everything at the end, and the steps that measured h, with λ."""
    model, optimizer, losses = made(strength, base)
    found = {}
    optimizer.observe(
        lambda record: found.update({record.number: record.strength} if record.structure else {})
    )
    for batch in batches(steps):
        optimizer.step(losses, *batch)
    return everything(model, optimizer), found


def test_it_is_the_run_that_a_schedule_of_these_steps_gives():
    rests, found = trained(Sensitivity(**FAINT))
    assert list(found) == RESTS and all(0 < value < 0.02 for value in found.values())
    scheduled = Sensitivity(**FAINT, rest=0, schedule=lambda step: float(step in RESTS))
    expected, _ = trained(scheduled)
    for part in ("parameters", "buffers", "grads"):
        assert rests[part] == expected[part], part


@pytest.mark.parametrize("base", [SGD, AdamW])
def test_where_lambda_acts_the_run_is_that_without_rest(base):
    rests, found = trained(Sensitivity(threshold=0.1), base, 30)
    never, _ = trained(Sensitivity(threshold=0.1, rest=0), base, 30)
    assert list(found) == list(range(0, 30, 2)) and rests["parameters"] == never["parameters"]


@pytest.mark.parametrize("stop", [15, 22, 41])
def test_it_resumes_in_a_rest_bit_for_bit(stop):
    whole, _ = trained(Sensitivity(**FAINT))
    model, optimizer, losses = made(Sensitivity(**FAINT))
    for batch in batches(60)[:stop]:
        optimizer.step(losses, *batch)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    model, optimizer, losses = made(Sensitivity(**FAINT))
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    for batch in batches(60)[stop:]:
        optimizer.step(losses, *batch)
    assert everything(model, optimizer) == whole


def test_micro_batches_rest_with_their_step():
    """A step of two micro-batches measures h of both, or of none."""
    _, optimizer, losses = made(Sensitivity(**FAINT))
    found = []
    optimizer.observe(lambda record: found.append(record.number) if record.structure else None)
    for x, y in batches(60):
        optimizer.accumulate(losses, x[:3], y[:3])
        optimizer.accumulate(losses, x[3:], y[3:])
        optimizer.step()
    assert found == RESTS


def test_a_step_that_fails_leaves_the_rest_as_it_was():
    _, optimizer, losses = made(Sensitivity(**FAINT))
    for batch in batches(20):
        optimizer.step(losses, *batch)
    before, step = bits(optimizer.strength.counters()), optimizer.base.step

    def fail():
        raise RuntimeError("no step")

    optimizer.base.step = fail
    with pytest.raises(RuntimeError, match="no step"):
        optimizer.step(losses, *batches(1)[0])
    assert bits(optimizer.strength.counters()) == before
    optimizer.base.step = step


def test_a_monitor_waits_for_the_end_of_a_rest():
    _, optimizer, losses = made(Sensitivity(**FAINT))
    reports = []
    monitor = Monitor(
        optimizer, every=7, sinks=[lambda step, scalars: reports.append((step, scalars))]
    )
    for batch in batches(60):
        optimizer.step(losses, *batch)
    assert [step for step, _ in reports] == [0, 8, 16, 26, 32, 40, 50]
    assert all("f3eo/strength" in scalars for _, scalars in reports) and not monitor.closed
