"""A sweep over data: what a batch may be, what is refused, and the model as it was before."""

import random

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cases import case
from f3eo.instruments.passes import problems


def test_a_batch_is_a_tuple_a_list_or_one_argument():
    model, x, y = nn.Linear(2, 1), torch.randn(3, 2), torch.randn(3)
    for data, arguments in (([(x, y)], 2), ([[x, y]], 2), ([x], 1), ([{"x": x}], 1), ([()], 0)):
        (problem,) = problems(model, print, data)
        assert len(problem.batch) == arguments
        assert problem.size == (3 if arguments else None)


def test_a_data_loader_and_a_list_of_parameters():
    c = case("partly_frozen")
    loader = DataLoader(TensorDataset(*c.batch), batch_size=4)
    for model in (c.model, list(c.model.parameters())):
        found = list(problems(model, c.losses, loader))
        assert [p.size for p in found] == [4, 2]
        assert all(len(p.parameters) == 4 and len(p.structured_parameters) == 4 for p in found)
        assert (found[0].model is None) == isinstance(model, list)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([], ValueError, "the data holds no batch"),
        (iter(()), ValueError, "the data holds no batch"),
        ([(torch.ones(2, 1),), (torch.ones(0, 1),)], ValueError, "batch 1 .* no samples"),
        (torch.ones(2, 1), TypeError, r"received a Tensor; for one batch use \[\(x, y\)\]"),
        ({"x": torch.ones(2, 1)}, TypeError, "received a dict"),
    ],
)
def test_data_that_does_not_fit(data, error, message):
    with pytest.raises(error, match=message):
        list(problems(nn.Linear(1, 1), print, data))


def test_a_frozen_model_is_refused():
    model = nn.Linear(1, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="none of the 2 parameters"):
        list(problems(model, print, [torch.ones(1, 1)]))


@pytest.mark.parametrize("ends", ["at the end", "early", "by an error"])
def test_the_model_and_random_states_come_back(ends):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout())
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    grads, state = [p.grad for p in model.parameters()], model.state_dict()
    state = {name: t.clone() for name, t in state.items()}
    drawn, own = [], torch.Generator().manual_seed(0)
    data = [torch.randn(4, 2), torch.randn(4, 2)]

    def draw():
        return torch.rand(1).item(), random.random(), numpy.random.rand()

    def sweep():
        for problem in problems(model, model, data, own):
            problem.closure(*problem.batch)
            model.zero_grad(set_to_none=True)
            drawn.append((draw(), torch.rand(1, generator=own).item()))
            if ends == "early":
                break
            if ends == "by an error":
                raise KeyError

    torch.manual_seed(1), random.seed(1), numpy.random.seed(1)
    expected = draw()
    for _ in range(2):
        torch.manual_seed(1), random.seed(1), numpy.random.seed(1)
        if ends == "by an error":
            with pytest.raises(KeyError):
                sweep()
        else:
            sweep()
        assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
        assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
        assert draw() == expected
    half = len(drawn) // 2
    assert [a for a, _ in drawn[:half]] == [a for a, _ in drawn[half:]]
    assert [b for _, b in drawn[:half]] != [b for _, b in drawn[half:]]  # the user's moves on
