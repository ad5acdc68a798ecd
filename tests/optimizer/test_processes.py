"""What a process refuses before anything moves; alone in its group it trains.

Several processes that train together are in `tests/processes`.
"""

import warnings
from contextlib import contextmanager

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.optim import SGD

from f3eo import F3EO
from f3eo.second_order import GaussNewton, NewtonCG
from optimizer.helpers import batches, losses, network, weights


@contextmanager
def group(count, rank=0):
    """A process group of this size, of which this is the only process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()


WORDS = "does not average over processes.*one of 2.*train on one process.*with F3EO"


@pytest.mark.parametrize("kind", [NewtonCG, GaussNewton])
def test_second_order_optimizers_are_refused_too(kind):
    row = network()
    optimizer = kind(row.model)
    before = weights(row.model)
    with group(2), pytest.raises(RuntimeError, match=WORDS):
        optimizer.step(lambda *_: pytest.fail("called"), *row.batch)
    assert torch.equal(before, weights(row.model))
    optimizer.step(row.drawn, *row.batch)


def test_a_group_of_one_trains_as_without_it():
    found = []
    for alone in (True, False):
        torch.manual_seed(0)
        model = network().model
        optimizer = F3EO(model, SGD, lr=0.1)
        if alone:
            for batch in batches(3):
                optimizer.step(losses(model), *batch)
        else:
            with group(1):
                for batch in batches(3):
                    optimizer.step(losses(model), *batch)
        found.append(weights(model))
    assert torch.equal(*found)


def sharded():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_module

    return distribute_module(nn.Linear(5, 3), init_device_mesh("cpu", (1,)))


@pytest.mark.filterwarnings("ignore")
def test_dtensors_are_refused_at_construction_even_in_a_group_of_one():
    with group(1):
        model = sharded()
        kinds = [lambda p: F3EO(p, SGD, lr=0.1), lambda p: F3EO(p, SGD(model.parameters(), lr=0.1))]
        for make in [*kinds, NewtonCG]:
            for parameters in (model, list(model.parameters())):
                with pytest.raises(
                    ValueError, match=r"parameter 0 of group 0.*is a DTensor.*Sharded.*one process"
                ):
                    make(parameters)


@pytest.mark.filterwarnings("ignore")
def test_parameters_that_become_dtensors_are_refused_at_the_step():
    with group(1):
        model = nn.Linear(5, 3).double()
        optimizer = F3EO(model, SGD, lr=0.1)
        optimizer.param_groups[0]["params"] = list(sharded().parameters())
        with pytest.raises(
            RuntimeError, match=r"have become DTensors.*Sharded.*train on one process"
        ):
            optimizer.step(lambda *_: pytest.fail("called"), *batches(1)[0])


@pytest.mark.parametrize("given", [2, "world", [0, 1]])
def test_what_is_no_group_of_processes_is_refused_by_its_value(given):
    with pytest.raises(TypeError, match=r"processes must be a process group.*received"):
        F3EO(network().model, SGD, lr=0.1, processes=given)
