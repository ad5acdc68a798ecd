"""State: saved, loaded, copied and pickled, training goes on bit for bit as if uninterrupted."""

import copy
import io
import pickle

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, lr_scheduler

from cases import WHOLE
from f3eo import F3EO, MiniBatch, ModelSampled, Ratio, Sign, Warmup
from f3eo.closure.likelihood import Categorical
from f3eo.extend import DecoupledPerTensor
from optimizer.helpers import batches, bits, everything, losses, network, weights

BASE = {
    "momentum": (SGD, {"lr": 0.05, "momentum": 0.9}),
    "adam": (Adam, {"lr": 0.02, "amsgrad": True}),
    "tensor_lr": (AdamW, {"lr": torch.tensor(0.02)}),
}
OPTIONS = {
    "defaults": dict,
    "all": lambda: {
        "fraction": 0.5,
        "every": 2,
        "strength": Ratio(0.3, Warmup(4)),
        "generator": torch.Generator().manual_seed(3),
    },
    "sign": lambda: {"estimator": Sign(), "generator": torch.Generator().manual_seed(3)},
    "global": lambda: {"estimator": ModelSampled(), "fraction": 0.5},
    "batch": lambda: {"estimator": MiniBatch(), "rule": DecoupledPerTensor(), "every": 3},
}


def pair(base, options):
    kind, settings = BASE[base]
    model = network().model
    return model, F3EO(model, kind, **settings, **WHOLE | OPTIONS[options]())


def run(model, optimizer, data):
    for batch in data:
        optimizer.step(lambda x, y: Categorical(model(x), y), *batch)


def saved(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("base", BASE)
@pytest.mark.parametrize("options", OPTIONS)
def test_resumed_training_equals_uninterrupted_training(base, options):
    """Through torch.save(weights_only=True), stopped between two measurements of h."""
    data = batches(9)
    torch.manual_seed(5)
    model, optimizer = pair(base, options)
    run(model, optimizer, data[:5])
    kept = saved({"m": model.state_dict(), "o": optimizer.state_dict(), "r": torch.get_rng_state()})
    run(model, optimizer, data[5:])

    other, resumed = pair(base, options)
    run(other, resumed, batches(2)[1:])  # something else, to be forgotten
    torch.set_rng_state(kept["r"])
    other.load_state_dict(kept["m"])
    resumed.load_state_dict(kept["o"])
    assert resumed.steps == 5
    run(other, resumed, data[5:])
    assert everything(other, resumed) == everything(model, optimizer)


def test_loading_does_not_change_its_input():
    model, optimizer = pair("adam", "all")
    run(model, optimizer, batches(3))
    state = copy.deepcopy(optimizer.state_dict())
    before = bits(state)
    _, resumed = pair("adam", "all")
    resumed.load_state_dict(state)
    resumed.param_groups[0]["lr"] = 3.0
    assert bits(state) == before


def test_loading_restores_counters_and_options_of_the_groups():
    model, optimizer = pair("momentum", "defaults")
    run(model, optimizer, batches(2))
    optimizer.param_groups[0]["lr"] = 0.125
    optimizer.skipped = 7
    _, resumed = pair("momentum", "defaults")
    resumed.load_state_dict(optimizer.state_dict())
    assert (resumed.steps, resumed.skipped) == (2, 7)
    assert resumed.base.param_groups[0]["lr"] == 0.125
    assert resumed.param_groups is resumed.base.param_groups


def test_a_loaded_optimizer_obeys_a_scheduler_made_before_and_after():
    model, optimizer = pair("momentum", "defaults")
    before = lr_scheduler.StepLR(optimizer, 1, 0.5)
    run(model, optimizer, batches(1))
    optimizer.load_state_dict(optimizer.state_dict())
    before.step()
    after = lr_scheduler.StepLR(optimizer, 1, 0.5)
    run(model, optimizer, batches(1))
    after.step()
    assert optimizer.base.param_groups[0]["lr"] == 0.05 / 4


def test_loading_drops_what_was_accumulated():
    model, optimizer = pair("momentum", "defaults")
    optimizer.accumulate(losses(model), *batches(1)[0])
    with pytest.warns(UserWarning, match=r"what was accumulated is not saved.*after step\(\)"):
        state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    with pytest.raises(RuntimeError, match="accumulate"):
        optimizer.step()


def test_the_state_dict_of_a_plain_optimizer_is_refused_with_the_cure():
    _, optimizer = pair("adam", "defaults")
    plain = Adam(network().model.parameters(), lr=0.5)
    before = bits(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"not a state dict of F3EO.*base\.load_state_dict"):
        optimizer.load_state_dict(plain.state_dict())
    assert bits(optimizer.state_dict()) == before
    optimizer.base.load_state_dict(plain.state_dict())  # the cure


@pytest.mark.parametrize("copied", [False, True])
def test_a_base_loaded_by_itself_keeps_its_bond(copied):
    """Groups stay shared, and which of them are out of the structure term stays known."""
    model = network().model
    halves = [{"params": m.parameters(), "structure": m is model[0]} for m in model[:3:2]]
    optimizer = F3EO(model, Adam(halves, lr=0.02), fraction=1, every=1)
    if copied:
        model, optimizer = copy.deepcopy((model, optimizer))
    plain = Adam([{"params": m.parameters()} for m in network().model[:3:2]], lr=0.5)
    optimizer.base.load_state_dict(plain.state_dict())
    assert [group["structure"] for group in optimizer.param_groups] == [True, False]
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.step(losses(model), *batches(1)[0])
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == 0.25


def test_a_state_dict_of_another_shape_is_refused_and_changes_nothing():
    model, optimizer = pair("adam", "defaults")
    run(model, optimizer, batches(1))
    before = bits(optimizer.state_dict())
    smaller = F3EO(network().model[0].parameters(), Adam, fraction=1, every=1)
    with pytest.raises(ValueError, match="size of optimizer's group"):
        optimizer.load_state_dict(smaller.state_dict())
    assert bits(optimizer.state_dict()) == before


def test_state_follows_the_dtype_of_the_model():
    model, optimizer = pair("adam", "all")
    run(model, optimizer, batches(1))
    other = network().model.float()
    resumed = F3EO(other, Adam, lr=0.02, amsgrad=True, every=2, fraction=1)
    resumed.load_state_dict(optimizer.state_dict())
    assert {s["exp_avg"].dtype for s in resumed.base.state.values()} == {torch.float32}
    resumed.step(losses(other), *batches(1, dtype=torch.float32)[0])


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@pytest.mark.parametrize("base", BASE)
@pytest.mark.parametrize("options", ["defaults", "all", "batch"])
def test_a_copy_of_model_and_optimizer_goes_on_alone_and_alike(way, base, options):
    data = batches(6)
    model, optimizer = pair(base, options)
    lr_scheduler.LinearLR(optimizer)  # wraps optimizer.step
    run(model, optimizer, data[:3])
    both = (model, optimizer)
    other, copied = copy.deepcopy(both) if way == "deepcopy" else pickle.loads(pickle.dumps(both))
    before = weights(model)
    run(other, copied, data[3:])
    assert torch.equal(before, weights(model))
    run(model, optimizer, data[3:])
    assert everything(other, copied) == everything(model, optimizer)
    assert copied.param_groups is copied.base.param_groups
    assert not {id(p) for p in copied.base.state} & {id(p) for p in optimizer.base.state}


def test_a_copy_has_no_hooks_and_nothing_accumulated_as_torch_has_it():
    model, optimizer = pair("momentum", "defaults")
    optimizer.register_step_pre_hook(lambda *_: pytest.fail("copied"))
    optimizer.accumulate(losses(model), *batches(1)[0])
    other, copied = copy.deepcopy((model, optimizer))
    copied.step(losses(other), *batches(1)[0])
