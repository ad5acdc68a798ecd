"""torch.distributed.checkpoint saves and loads the optimizer, before its first step and after."""

import copy
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from pytorch_optimizer import Lookahead
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.optim import SGD, AdamW

from f3eo import F3EO, MiniBatch
from optimizer.helpers import UNKNOWN, batches, bits, everything, losses, network, weights

BASES = {
    "sgd": (SGD, {"lr": 0.1}),
    "momentum": (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.1}),
    "adamw": (AdamW, {"lr": 0.02}),
    "tensor_lr": (AdamW, {"lr": torch.tensor(0.02)}),
}
WAYS = {
    "as it is": StateDictOptions(),
    "flat": StateDictOptions(flatten_optimizer_state_dict=True),
    "full": StateDictOptions(full_state_dict=True),
}


def pair(base="adamw", estimator=None, seed=3, **options):
    kind, settings = BASES[base]
    model = network().model
    generator = torch.Generator().manual_seed(seed)
    settings = copy.deepcopy(settings) | options
    return model, F3EO(model, kind, estimator=estimator, generator=generator, **settings)


def run(model, optimizer, data):
    for batch in data:
        optimizer.step(losses(model), *batch)


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own: no process group is there
        return function(*args, **options)


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("estimator", [None, MiniBatch()], ids=["default", "batch"])
@pytest.mark.parametrize("steps", [0, 7])
@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("base", BASES)
def test_training_goes_on_bit_for_bit(base, every, steps, estimator, way, stored, tmp_path):
    data = batches(10)
    model, optimizer = pair(base, estimator, every=every)
    run(model, optimizer, data)
    whole = everything(model, optimizer)

    model, optimizer = pair(base, estimator, every=every)
    run(model, optimizer, data[:steps])
    before = everything(model, optimizer)
    options = WAYS[way]
    parts = quiet(get_state_dict, model, optimizer, options=options)
    assert everything(model, optimizer) == before  # learning rates, gradients, weights

    other, resumed = pair(base, estimator, seed=4, every=every)
    with torch.no_grad():
        other[0].weight += 1
    if stored and way != "full":
        quiet(dcp.save, {"m": parts[0], "o": parts[1]}, checkpoint_id=tmp_path)
        parts = quiet(get_state_dict, other, resumed, options=options)
        loaded = {"m": parts[0], "o": parts[1]}
        quiet(dcp.load, loaded, checkpoint_id=tmp_path)
        parts = loaded["m"], loaded["o"]
    else:
        parts = copy.deepcopy(parts)
    quiet(
        set_state_dict,
        other,
        resumed,
        model_state_dict=parts[0],
        optim_state_dict=parts[1],
        options=options,
    )
    assert (resumed.steps, resumed.param_groups[0]["lr"]) == (steps, BASES[base][1]["lr"])
    run(other, resumed, data[steps:])
    run(model, optimizer, data[steps:])
    for found in (everything(model, optimizer), everything(other, resumed)):
        assert {**found, "random": 0, "grads": 0} == {**whole, "random": 0, "grads": 0}


def test_the_state_of_every_parameter_is_all_there_under_its_name():
    model, optimizer = pair(every=5)  # of which nothing is kept
    run(model, optimizer, batches(2))
    state = get_optimizer_state_dict(model, optimizer)["state"]
    assert state.keys() == {name for name, _ in model.named_parameters()}
    entry = state["0.weight"]
    assert entry.keys() == {"base", "f3eo"}
    assert entry["base"].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert (entry["f3eo"]["steps"], float(entry["f3eo"]["trace"])) == (2, float(optimizer.trace))


def first_form(state):
    """As the first state dicts were: "state" holds directions alone."""
    state["state"] = {k: {"structure": torch.full((2,), torch.nan)} for k in state["state"]}
    del state["f3eo"]["trace"]
    return state


def second_form(state):
    """As those of version 0.2: a direction stands beside the state of the base and the counters."""
    for entry in state["state"].values():
        entry["structure"] = torch.full((2,), torch.nan)
    return state


@pytest.mark.parametrize("form", [first_form, second_form])
def test_state_dicts_with_directions_load_and_the_directions_are_dropped(form):
    model, optimizer = pair(every=3)
    run(model, optimizer, batches(2))
    state = form(copy.deepcopy(optimizer.state_dict()))
    other, resumed = pair(every=3, seed=4)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(state)
    assert {key for e in resumed.state_dict()["state"].values() for key in e} == {"base", "f3eo"}
    run(model, optimizer, batches(7)[2:])
    run(other, resumed, batches(7)[2:])
    assert torch.equal(weights(model), weights(other))
    assert bits(resumed.base.state_dict()) == bits(optimizer.base.state_dict())


@pytest.mark.parametrize("way", WAYS)
def test_checkpoints_of_single_parameters_with_directions_load_too(way):
    model, optimizer = pair(every=3)
    run(model, optimizer, batches(2))
    state = copy.deepcopy(quiet(get_optimizer_state_dict, model, optimizer, options=WAYS[way]))
    if way == "flat":
        state |= {f"state.{name}.structure": p.detach() for name, p in model.named_parameters()}
    else:
        for name, p in model.named_parameters():
            state["state"][name]["structure"] = p.detach()
    other, resumed = pair(every=3, seed=4)
    other.load_state_dict(model.state_dict())
    quiet(set_optimizer_state_dict, other, resumed, state, options=WAYS[way])
    run(model, optimizer, batches(7)[2:])
    run(other, resumed, batches(7)[2:])
    assert everything(other, resumed)["base"] == everything(model, optimizer)["base"]
    assert torch.equal(weights(model), weights(other))


def test_the_state_of_another_optimizer_is_refused_and_nothing_changes():
    model, optimizer = pair()
    plain = AdamW(model.parameters(), lr=0.5)
    foreign = get_optimizer_state_dict(model, plain)
    for steps in (0, 1):
        run(model, optimizer, batches(steps))
        optimizer.zero_grad()
        before = everything(model, optimizer)
        with pytest.raises(ValueError, match="not a state dict of F3EO"):
            set_optimizer_state_dict(model, optimizer, foreign)
        assert everything(model, optimizer) == before
        run(model, optimizer, batches(1))  # it still trains
        assert bits(before["parameters"]) != everything(model, optimizer)["parameters"]


@pytest.mark.filterwarnings(UNKNOWN)
def test_a_base_that_keeps_its_state_in_a_form_of_its_own_is_refused_at_loading():
    model = network().model
    optimizer = F3EO(model, Lookahead(AdamW(model.parameters(), lr=0.02)))
    run(model, optimizer, batches(1))
    state = get_optimizer_state_dict(model, optimizer)
    before = everything(model, optimizer)
    with pytest.raises(ValueError, match=r"Lookahead keeps its state.*torch\.save"):
        set_optimizer_state_dict(model, optimizer, state)
    assert everything(model, optimizer) == before


class Stubborn(SGD):
    """Cannot step while its gradients are zero."""

    def step(self, closure=None):
        if not any(p.grad.any() for group in self.param_groups for p in group["params"]):
            raise RuntimeError("nothing to do")
        return super().step(closure)


@pytest.mark.filterwarnings(UNKNOWN)
def test_a_base_that_fails_without_gradients_leaves_everything_as_it_was():
    model = network().model
    optimizer = F3EO(model, Stubborn, lr=0.1, momentum=0.9)
    before = everything(model, optimizer)
    get_optimizer_state_dict(model, optimizer)
    assert everything(model, optimizer) == before
    run(model, optimizer, batches(2))
    state = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    other = network().model
    resumed = F3EO(other, Stubborn, lr=0.1, momentum=0.9)
    set_optimizer_state_dict(other, resumed, state)
    assert bits(resumed.base.state_dict()) == bits(optimizer.base.state_dict())


def test_state_that_is_assigned_goes_to_base_and_optimizer_and_no_other_is_taken():
    model, optimizer = pair(every=5)
    run(model, optimizer, batches(1))
    p = model[0].weight
    optimizer.state[p] = {"base": {"step": torch.tensor(9.0)}, "structure": p}
    assert optimizer.base.state[p] == {"step": torch.tensor(9.0)}
    assert optimizer.state[p].keys() == {"base", "f3eo"}  # a direction of version 0.2 is dropped
    for key, value in (("own", {}), (p, {"slow": p})):
        with pytest.raises(TypeError, match=r"wrap F3EO around.*F3EO\(model, other\)"):
            optimizer.state[key] = value
    del optimizer.state[p]
    assert p not in optimizer.base.state
    optimizer.load_state_dict(pair(every=5)[1].state_dict())
    assert len(optimizer.state) == 0


def test_a_call_of_step_that_is_none_of_checkpoints_is_refused_as_ever():
    model, optimizer = pair()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with pytest.raises(RuntimeError, match="needs accumulate"):
        optimizer.step()
