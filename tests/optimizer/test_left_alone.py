"""What a step has not measured the base leaves alone: frozen, thawed, moved, added, unused."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from dense import relative
from f3eo import F3EO, DoubleBackward, PerSample, Ratio
from optimizer.helpers import batches, losses, network, weights

BASES = {
    "sgd": (SGD, {"lr": 0.1}),
    "momentum, decay": (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    "adamw": (AdamW, {"lr": 0.02, "weight_decay": 0.1}),
    "adam, for loop": (Adam, {"lr": 0.02, "foreach": False}),
    "adam, foreach": (Adam, {"lr": 0.02, "foreach": True}),
    "adam, fused": (Adam, {"lr": 0.02, "fused": True}),
}
EXACT = PerSample(DoubleBackward())


def split(model):
    """Two groups, the second of which is out of the structure term."""
    return [
        {"params": list(model[:3].parameters())},
        {"params": list(model[4].parameters()), "structure": False, "lr": 0.05},
    ]


def stepped(model, optimizer, batch, how):
    def closure(x, y):
        if how == "zero_grad in the closure":
            optimizer.zero_grad()
        return losses(model)(x, y)

    if how == "accumulate":
        for part in zip(*(t.split(3) for t in batch), strict=True):
            optimizer.accumulate(closure, *part)
        optimizer.step()
    else:
        optimizer.step(closure, *batch)


@pytest.mark.parametrize("how", ["plain", "zero_grad in the closure", "accumulate"])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("base", BASES)
def test_what_is_frozen_stays_and_what_is_thawed_trains(base, grouped, how):
    kind, options = BASES[base]
    model = network().model
    layers = (model[0], model[4])
    optimizer = F3EO(split(model) if grouped else model, kind, **options)
    for k, batch in enumerate(batches(9)):
        frozen = 3 <= k < 7
        for layer in layers:
            layer.requires_grad_(not frozen)
        before = copy.deepcopy(layers)
        state = copy.deepcopy([optimizer.base.state.get(layer.weight) for layer in layers])
        stepped(model, optimizer, batch, how)
        for layer, old, kept in zip(layers, before, state, strict=True):
            same = [
                torch.equal(p, q) for p, q in zip(layer.parameters(), old.parameters(), strict=True)
            ]
            assert same == [frozen, frozen]
            if frozen:
                now = optimizer.base.state.get(layer.weight)
                assert str(now) == str(kept)  # neither momentum nor the count of steps went on
    assert optimizer.steps == 9


@pytest.mark.parametrize("base", BASES)
def test_a_gradient_of_before_is_not_applied(base):
    """One that the user's own backward() left behind, before the first step."""
    kind, options = BASES[base]
    model = network().model
    losses(model)(*batches(1)[0]).sum().backward()
    model[0].requires_grad_(False)
    optimizer = F3EO(model, kind, **options)
    before = copy.deepcopy(model[0])
    optimizer.step(losses(model), *batches(1)[0])
    assert torch.equal(before.weight, model[0].weight)


def test_a_skipped_step_leaves_a_frozen_layer_and_the_next_one_too():
    model = network().model
    optimizer = F3EO(model, SGD, lr=0.1, momentum=0.9)
    optimizer.step(losses(model), *batches(1)[0])
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    with pytest.warns(UserWarning, match="not finite"):
        optimizer.step(lambda x, y: losses(model)(x, y) * torch.nan, *batches(1)[0])
    optimizer.step(losses(model), *batches(1)[0])
    assert torch.equal(before, model[0].weight)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("base", BASES)
def test_a_layer_that_the_loss_leaves_out_stays_at_a_measured_step_and_between(base, every):
    """Weights and state; the other layer trains."""
    kind, options = BASES[base]
    torch.manual_seed(0)
    first, second = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()
    model = nn.ModuleList([first, second])
    options |= {"estimator": EXACT, "strength": Ratio(0.3), "fraction": 1, "every": every}
    optimizer = F3EO(model, kind, **options)
    data = batches(3)
    optimizer.step(lambda x, y: losses(first)(x, y) + losses(second)(x, y), *data[0])
    before, moved = weights(second), weights(first)
    state = str([optimizer.base.state.get(p) for p in second.parameters()])
    for batch in data[1:]:
        optimizer.step(losses(first), *batch)
    assert torch.equal(before, weights(second)) and not torch.equal(moved, weights(first))
    assert str([optimizer.base.state.get(p) for p in second.parameters()]) == state


def test_a_layer_added_or_moved_to_another_group_trains_as_that():
    model = network().model
    optimizer = F3EO(model[:3].parameters(), SGD, lr=0.1, momentum=0.9)
    optimizer.step(losses(model), *batches(1)[0])
    before = copy.deepcopy(model)
    losses(model)(*batches(1)[0]).sum().backward()  # a .grad of the layer that is not there yet
    optimizer.add_param_group({"params": model[4].parameters(), "lr": 0.0})
    optimizer.step(losses(model), *batches(1)[0])
    assert torch.equal(before[4].weight, model[4].weight)
    assert not torch.equal(before[0].weight, model[0].weight)
    moved = optimizer.param_groups[0]["params"].pop(0)  # at another learning rate: 0
    optimizer.param_groups[1]["params"].insert(0, moved)
    before = moved.clone()
    optimizer.step(losses(model), *batches(1)[0])
    assert torch.equal(before, moved)


class Seen(PerSample):
    """How many parameters h was measured for, at every measurement."""

    def __init__(self):
        super().__init__(DoubleBackward())
        self.seen = []

    def gradients(self, problem):
        self.seen.append(sum(problem.structured))
        return super().gradients(problem)


def schedule(model, freeze, thaw, steps, strength=None):
    """Measurements of an optimizer with every=4, of which step each, with a layer frozen midway."""
    estimator = Seen()
    options = {"estimator": estimator, "every": 4, "fraction": 1}
    optimizer = F3EO(model, SGD, lr=0.1, strength=strength or Ratio(0.3), **options)
    found = []
    for k, batch in enumerate(batches(steps)):
        if k == freeze:
            model[0].requires_grad_(False)
        if k == thaw:
            model[0].requires_grad_(True)
        before = len(estimator.seen)
        optimizer.step(losses(model), *batch)
        found += [(k, count) for count in estimator.seen[before:]]
    return found


def test_every_fourth_step_is_measured_whoever_is_frozen_meanwhile():
    # Frozen over the measurement at 4, which is that of the others.
    assert schedule(network().model, 1, 6, 9) == [(0, 6), (4, 4), (8, 6)]
    # Frozen between two measurements.
    assert schedule(network().model, 1, 3, 6) == [(0, 6), (4, 6)]


def test_a_measurement_that_a_strength_of_zero_left_out_is_not_made_up_for():
    model = network().model
    strength = Ratio(0.3, lambda step: 0.0 if 4 <= step < 6 else 1.0)
    assert schedule(model, -1, -1, 9, strength) == [(0, 6), (8, 6)]


def test_parameters_that_went_to_a_group_outside_since_accumulate_are_refused():
    model = network().model
    groups = [{"params": list(model[:3].parameters())}, {"params": list(model[4].parameters())}]
    groups[1]["structure"] = False
    optimizer = F3EO(groups, SGD, lr=0.1)
    optimizer.accumulate(losses(model), *batches(1)[0])
    before = weights(model)
    optimizer.param_groups[1]["params"].insert(0, optimizer.param_groups[0]["params"].pop())
    with pytest.raises(RuntimeError, match="another group"):
        optimizer.step()
    assert torch.equal(before, weights(model))
    optimizer.zero_grad()
    optimizer.step(losses(model), *batches(1)[0])


def test_zero_grad_in_a_closure_keeps_the_micro_batches_before_it():
    found = []
    for cleared in (False, True):
        model = network().model
        optimizer = F3EO(model, SGD, lr=0.1, estimator=EXACT, fraction=1)

        def closure(x, y, model=model, optimizer=optimizer, cleared=cleared):
            if cleared:
                optimizer.zero_grad()
            return losses(model)(x, y)

        for part in zip(*(t.split(3) for t in batches(1)[0]), strict=True):
            optimizer.accumulate(closure, *part)
        optimizer.step()
        found.append(weights(model))
    assert relative(*found) == 0
