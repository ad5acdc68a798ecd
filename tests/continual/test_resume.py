"""A run that is saved and resumed goes on bit for bit, with every part in its state."""

import copy
import io
import warnings
from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, AdamW

from continual.truths import batch, flat, losses_of, network
from f3eo import F3EO
from f3eo.continual import (
    Balanced,
    Elastic,
    Exact,
    FromSteps,
    Past,
    PathIntegral,
    Rehearsal,
    Reservoir,
    Ring,
    RunningMean,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PARTS: dict[str, Callable[[int], list[Past]]] = {
    "reservoir": lambda s: [Rehearsal(Reservoir(12, generator(s)), 5)],
    "ring": lambda s: [Rehearsal(Ring(4, generator(s)), 5)],
    "balanced": lambda s: [Rehearsal(Balanced(9, lambda x, y: y, generator(s)), 5)],
    "exact": lambda s: [Elastic(Exact(), 2.0)],
    "from steps": lambda s: [Elastic(FromSteps(), 2.0, decay=0.5)],
    "path integral": lambda s: [Elastic(PathIntegral(), 2.0, decay=1.0)],
    "running mean": lambda s: [RunningMean(0.7)],
    "both": lambda s: [Rehearsal(Reservoir(12, generator(s)), 5), Elastic(FromSteps(), 2.0)],
}


def optimizer_of(parts: list[Past], seed: int, base=AdamW) -> F3EO:
    model = network(seed)
    return F3EO(model, base, lr=0.05, past=parts, every=2, generator=generator(seed))


def train(optimizer: F3EO, steps: range) -> None:
    model = optimizer.model
    for n in steps:
        optimizer.step(losses_of(model), *batch(6, n))
        if n % 7 == 6:
            optimizer.consolidate(losses_of(model), [batch(6, n - k) for k in range(3)])


@pytest.mark.parametrize("stop", [5, 16])
@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_a_resumed_run_is_the_same_bit_for_bit(make, stop):
    whole = optimizer_of(make(0), 0)
    train(whole, range(20))
    first = optimizer_of(make(0), 0)
    train(first, range(stop))
    file = io.BytesIO()
    torch.save((first.model.state_dict(), first.state_dict()), file)
    train(first, range(stop, stop + 2))  # what was saved does not change with the run
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    second = optimizer_of(make(99), 1)
    second.model.load_state_dict(weights)
    second.load_state_dict(state)
    train(second, range(stop, 20))
    assert torch.equal(flat(second.model.parameters()), flat(whole.model.parameters()))


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_a_copy_goes_on_as_the_original(make):
    first = optimizer_of(make(0), 0)
    train(first, range(9))
    second = copy.deepcopy(first)
    for optimizer in (first, second):
        train(optimizer, range(9, 15))
    assert torch.equal(flat(second.model.parameters()), flat(first.model.parameters()))


def test_a_state_in_memory_does_not_change_with_the_run():
    first = optimizer_of(PARTS["both"](0), 0)
    train(first, range(9))
    state, weights = copy.deepcopy(first.state_dict()["f3eo"]["past"]), first.state_dict()
    train(first, range(9, 12))
    assert repr(weights["f3eo"]["past"]) == repr(state)


def test_a_state_of_other_parts_is_left_alone_with_a_warning():
    first = optimizer_of(PARTS["reservoir"](0), 0)
    train(first, range(2))
    second = optimizer_of(PARTS["exact"](0), 0)
    with pytest.warns(UserWarning, match=r"a past of \['Rehearsal'\].*one of \['Elastic'\]"):
        second.load_state_dict(first.state_dict())
    assert second.steps == 2


def test_a_state_without_a_past_is_as_it_was():
    first = optimizer_of([], 0, SGD)
    train(first, range(2))
    assert "past" not in first.state_dict()["f3eo"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer_of([], 0, SGD).load_state_dict(first.state_dict())


def test_a_state_of_another_network_is_refused():
    first = optimizer_of(PARTS["exact"](0), 0)
    train(first, range(7))
    part = PARTS["exact"](0)[0]
    state = first.past[0].state_dict(list(first.model.parameters()))
    with pytest.raises(ValueError, match=r"parameter 0 has shape \(5, 4\), received one of \(2,\)"):
        part.load_state_dict(state, [torch.zeros(2)] * 4)
    with pytest.raises(ValueError, match="4 parameters, and here are 1"):
        part.load_state_dict(state, [torch.zeros(2)])
