"""A strength with a state: saved, loaded, copied, and as it was where a step fails."""

import copy
import io
import math
import pickle
import warnings

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import SGD, AdamW

from f3eo import F3EO, Cap, Fitted, Ratio
from f3eo.control import FreeEnergy, Share, TraceTarget
from optimizer.helpers import batches, bits, losses, network, weights

STRENGTHS = {
    "target": lambda: TraceTarget(0.05, memory=3),
    "schedule": lambda: TraceTarget(falling, memory=3),
    "share, before": lambda: TraceTarget(Share(0.5, after=5), memory=2),
    "share, after": lambda: TraceTarget(Share(0.5, after=2), memory=2),
    "limited": lambda: TraceTarget(1e-4, start=10.0, limit=1e-3),
    "free energy": lambda: FreeEnergy(60, memory=3),
}
BASES = {"sgd": (SGD, {"lr": 0.1, "momentum": 0.9}), "adamw": (AdamW, {"lr": 0.02})}


def falling(step):
    return 0.2 / (1 + step)


def pair(name, base="sgd", every=2):
    kind, options = BASES[base]
    model = network().model
    generator = torch.Generator().manual_seed(3)
    strength = STRENGTHS[name]()
    return model, F3EO(
        model, kind, strength=strength, fraction=1, every=every, generator=generator, **options
    )


def run(model, optimizer, data):
    for batch in data:
        optimizer.step(losses(model), *batch)


def state(model, optimizer):
    return bits(weights(model)), repr(optimizer.strength.counters())


def stored(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_resumed_training_equals_uninterrupted_training(name, base, steps):
    data = batches(12)
    model, optimizer = pair(name, base)
    run(model, optimizer, data)
    whole = state(model, optimizer)
    model, optimizer = pair(name, base)
    run(model, optimizer, data[:steps])
    parts = stored((model.state_dict(), optimizer.state_dict()))
    for _ in range(2):  # once into a new optimizer, once into one that has gone elsewhere
        model, optimizer = pair(name, base)
        run(model, optimizer, data[5:] if _ else [])
        model.load_state_dict(parts[0])
        optimizer.load_state_dict(copy.deepcopy(parts[1]))
        run(model, optimizer, data[steps:])
        assert state(model, optimizer) == whole


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("flat", [False, True])
def test_distributed_checkpoint_carries_it(name, flat):
    data, options = batches(10), StateDictOptions(flatten_optimizer_state_dict=flat)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own: no process group is there
        model, optimizer = pair(name)
        run(model, optimizer, data[:6])
        kept = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
        weighed = copy.deepcopy(model.state_dict())
        run(model, optimizer, data[6:])
        whole = state(model, optimizer)
        model, optimizer = pair(name)
        model.load_state_dict(weighed)
        set_optimizer_state_dict(model, optimizer, kept, options=options)
    run(model, optimizer, data[6:])
    assert state(model, optimizer) == whole


@pytest.mark.parametrize("name", STRENGTHS)
def test_copies_go_on_by_themselves(name):
    data = batches(9)
    model, optimizer = pair(name)
    run(model, optimizer, data[:4])
    for copied in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        twin, other = copied((model, optimizer))
        before = state(model, optimizer)
        run(twin, other, data[4:])
        assert state(model, optimizer) == before != state(twin, other)


def test_strengths_without_a_state_add_nothing_to_a_state_dict():
    for strength in (Fitted(0.04), Ratio(0.1), Cap(0.1)):
        optimizer = F3EO(network().model, SGD, lr=0.1, strength=strength)
        names = optimizer.state_dict()["f3eo"].keys()
        assert names == {"steps", "skipped", "trace", "generator", *optimizer.estimator.counters()}
    model, optimizer = pair("target")
    names = optimizer.state_dict()["f3eo"].keys()
    run(model, optimizer, batches(3))
    assert optimizer.state_dict()["f3eo"].keys() == names  # the same at every step


@pytest.mark.parametrize("name", ["share, after", "free energy"])
def test_a_state_dict_without_one_starts_it_anew(name):
    """An older one, or one of another strength."""
    old = F3EO(network().model, SGD, lr=0.1, momentum=0.9, strength=Cap(0.1))
    model, optimizer = pair(name)
    run(model, optimizer, batches(6))
    optimizer.load_state_dict(old.state_dict())
    assert repr(optimizer.strength.counters()) == repr(STRENGTHS[name]().counters())
    old.load_state_dict(pair(name)[1].state_dict())


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_step_that_fails_leaves_it_as_it_was(name):
    class Failing(SGD):
        fails = False

        def step(self, closure=None):
            if self.fails:
                raise ZeroDivisionError
            return super().step(closure)

    model = network().model
    base = Failing(model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="no metric of Failing"):
        optimizer = F3EO(model, base, strength=STRENGTHS[name](), every=1)
    run(model, optimizer, batches(3))
    before = state(model, optimizer)
    optimizer.base.fails = True
    with pytest.raises(ZeroDivisionError):
        run(model, optimizer, batches(1))
    assert state(model, optimizer) == before


def test_a_step_that_is_skipped_does_not_count():
    model, optimizer = pair("target", every=1)
    run(model, optimizer, batches(2))
    before = repr(optimizer.strength.counters())
    with pytest.warns(UserWarning, match="not finite"):
        optimizer.step(lambda x, y: losses(model)(x, y) * math.inf, *batches(1)[0])
    assert repr(optimizer.strength.counters()) == before
