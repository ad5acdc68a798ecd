"""A snapshot restores buffers, random states and .grad."""

import random
import sys

import pytest
import torch

from closure.helpers import problem, run, state
from f3eo.closure.snapshot import RandomStates, Snapshot, all_modules


def test_a_snapshot_restores_buffers_random_states_and_grads():
    p = problem(generator=torch.Generator().manual_seed(1))
    tensors, before = (p.model.written, p.model.replaced), state(p)
    snapshot = Snapshot(p)
    run(p)
    torch.rand(3, generator=p.generator)
    p.parameters[0].grad = torch.ones_like(p.parameters[0])
    assert state(p) != before
    snapshot.restore()
    assert state(p) == before and p.parameters[0].grad is None
    assert (p.model.written, p.model.replaced)[0] is tensors[0]
    assert p.model.replaced is tensors[1]


def test_buffers_alone_can_be_put_back():
    p = problem()
    before, snapshot = state(p), Snapshot(p)
    run(p)
    snapshot.restore_buffers()
    assert state(p)[:3] == before[:3] and state(p)[3] != before[3]


def test_installed_buffers_are_copies_and_shared_ones_stay_shared():
    p = problem()
    p.model.layer.register_buffer("alias", p.model.written)
    original, snapshot = p.model.written, Snapshot(p)
    snapshot.install_buffer_copies()
    p.model.written.add_(1)
    assert p.model.layer.alias is p.model.written and original.tolist() == [0, 0]
    snapshot.restore()
    assert p.model.layer.alias is p.model.written is original and original.tolist() == [0, 0]


def test_buffers_that_do_not_outlive_a_save_are_put_back_too():
    p = problem()
    p.model.register_buffer("passing", torch.zeros(1), persistent=False)
    snapshot = Snapshot(p)
    p.model.passing.add_(1)
    snapshot.restore()
    assert p.model.passing.tolist() == [0]


def draw_numpy():
    pytest.importorskip("numpy").random.rand()


DRAWS = {
    "torch": lambda g: torch.rand(1),
    "python": lambda g: random.random(),
    "numpy": lambda g: draw_numpy(),
    "generator": lambda g: torch.rand(1, generator=g),
}


@pytest.mark.parametrize("source", DRAWS)
def test_random_states_tell_which_source_has_drawn_and_restore_it(source):
    draw_numpy()
    generator = torch.Generator().manual_seed(0)

    def states():
        numpy = sys.modules["numpy"].random.get_state()
        return {
            "torch": torch.get_rng_state().tolist(),
            "python": random.getstate(),
            "numpy": (numpy[1].tolist(), numpy[2]),
            "generator": generator.get_state().tolist(),
        }

    before, recorded = states(), RandomStates([], [generator], numpy=True)
    DRAWS[source](generator)
    assert {name for name, now in states().items() if now != before[name]} == {source}
    assert recorded.torch_changed() == (source == "torch")
    assert recorded.python_changed() == (source == "python")
    assert recorded.numpy_changed() == (source == "numpy")
    recorded.restore()
    assert states() == before


def test_numpy_is_not_covered_unless_asked():
    draw_numpy()
    recorded = RandomStates([])
    draw_numpy()
    assert not recorded.numpy_changed()


def test_every_module_is_found_once():
    shared = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model = torch.nn.Sequential(shared, torch.nn.Sequential(torch.nn.ReLU(), shared))
    model.register_module("missing", None)
    model[1].append(model[0][0])
    found = all_modules(model)
    assert len(found) == len(set(found)) and set(found) == set(model.modules())
    assert all_modules(None) == []
