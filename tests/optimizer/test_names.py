"""Named parameters in place of the model: their names are kept, and messages use them."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from f3eo import F3EO
from f3eo.closure.problem import Problem
from optimizer.helpers import batches, losses, network, weights

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]


def groups(model):
    named = list(model.named_parameters())
    return [{"params": named[:2]}, {"params": iter(named[2:]), "lr": 0.05, "structure": False}]


@pytest.mark.parametrize("base", [SGD, Adam])
def test_named_parameters_train_as_parameters(base):
    found = []
    for how in ("named", "plain"):
        torch.manual_seed(0)
        model = network().model
        own = model.named_parameters() if how == "named" else model.parameters()
        optimizer = F3EO(own, base, lr=0.05)
        for batch in batches(3):
            optimizer.step(losses(model), *batch)
        found.append(weights(model))
    assert torch.equal(*found)


def test_names_are_in_groups_and_state_and_stay_there():
    model = network().model
    optimizer = F3EO(groups(model), SGD, lr=0.1)
    state = copy.deepcopy(optimizer.state_dict())
    for own in (optimizer.param_groups, state["param_groups"], state["base"]["param_groups"]):
        assert [name for group in own for name in group["param_names"]] == NAMES
    other = network().model
    resumed = F3EO(groups(other), SGD, lr=0.1)
    for group in (*state["param_groups"], *state["base"]["param_groups"]):
        del group["param_names"]  # a checkpoint from before there were names
    resumed.load_state_dict(state)
    assert [name for group in resumed.param_groups for name in group["param_names"]] == NAMES


def test_a_named_group_is_added_with_its_names():
    model = network().model
    optimizer = F3EO(model[0].named_parameters(), SGD, lr=0.1)
    optimizer.add_param_group({"params": model[2].named_parameters(prefix="second")})
    assert optimizer.param_groups[1]["param_names"] == ["second.weight", "second.bias"]
    with pytest.raises(ValueError, match="with/without names"):
        optimizer.add_param_group({"params": model[4].parameters()})


def test_messages_name_the_parameter():
    problems = []

    class Kept(F3EO):
        def _measurement(self):
            measured = super()._measurement()
            return lambda problem, structure: (
                problems.append(problem) or measured(problem, structure=structure)
            )

    model = network().model
    model[0].weight.requires_grad_(False)
    for own, names in (
        (groups(model), NAMES[1:]),
        (model, NAMES[1:]),
        (model.parameters(), [f"parameter {i} of shape" for i in range(5)]),
    ):
        Kept(own, SGD, lr=0.1).step(losses(model), *batches(1)[0])
        problem = problems.pop()
        shown = [problem.name(p) for p in problem.parameters]
        assert all(a.startswith(b) for a, b in zip(shown, names, strict=True))
    spare = nn.Parameter(torch.ones(1))
    problem = Problem(lambda: None, (), [spare], [True], names=["spare"])
    assert problem.name(spare) == "spare" and "shape (2,)" in problem.name(torch.ones(2))


def test_refusals_name_the_parameter():
    complex_one = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"head\.scale, parameter 0 of group 0.*is complex"):
        F3EO([("head.scale", complex_one)], SGD, lr=0.1)
