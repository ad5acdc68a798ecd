"""A replay runs a function again with the buffers and random states of its first call."""

import random

import pytest
import torch
from torch import nn

from closure.helpers import problem, run, state
from f3eo.closure.replay import Replay


def test_a_replay_runs_first_as_usual_and_then_leaves_no_trace():
    p = problem(generator=torch.Generator().manual_seed(1))
    replay = Replay(lambda: [run(p).losses.sum()], p)
    first = replay()
    after = state(p)
    assert after[0] == [1, 1]
    torch.rand(5)
    moved = state(p)
    assert torch.equal(replay()[0], first[0])  # the same dropout mask
    assert state(p) == moved
    assert torch.equal(replay()[0], first[0])


def test_a_replay_that_fails_leaves_no_trace_either():
    p = problem()
    calls = []

    def function():
        calls.append(1)
        result = [run(p).losses.sum()]
        if len(calls) == 2:
            raise ZeroDivisionError
        return result

    replay = Replay(function, p)
    replay()
    before = state(p)
    with pytest.raises(ZeroDivisionError):
        replay()
    assert state(p) == before


def test_the_graph_of_a_replay_survives_the_return_of_the_buffers():
    """A BatchNorm in training keeps its statistics for the backward pass."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    p = problem(lambda x, y: model(x).sum(1), model=model)
    replay = Replay(lambda: [run(p).losses.square().sum()], p)
    gradients = [torch.autograd.grad(replay()[0], p.parameters) for _ in range(3)]
    assert model[1].num_batches_tracked == 1
    for again in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], again, strict=True))


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), random.random, lambda: None])
def test_a_replay_tells_whether_the_first_call_drew_random_numbers(draw):
    replay = Replay(draw, problem())
    first = replay()
    assert replay.random_changed() == (first is not None)
    assert not replay.numpy_random_changed()


def test_another_function_runs_in_the_surroundings_of_the_first_call():
    replay = Replay(lambda: torch.rand(3), problem())
    first = replay()
    torch.rand(2)
    assert torch.equal(replay.rerun(lambda: torch.rand(3) + 1), first + 1)
