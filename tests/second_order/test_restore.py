"""Both passes of a step see the same random numbers; buffers and states are as after one pass."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import lr_scheduler

from cases import case
from f3eo import Categorical
from second_order.helpers import OPTIMIZERS, bits, made, same, weights

# Randomness and buffers.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masks_are_the_same_within_a_step_and_others_in_the_next(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 20), nn.Dropout(0.5), nn.Linear(20, 3)).double()
    masks = []
    model[1].register_forward_hook(lambda m, i, o: masks.append((o == 0).detach()))
    optimizer = OPTIMIZERS[name](model)
    row = case("mlp")
    optimizer.step(lambda x, y: Categorical(model(x), y), *row.batch)
    optimizer.step(lambda x, y: Categorical(model(x), y), *row.batch)
    assert len(masks) == 4  # forward passes: two a step
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("accepted", [True, False])
def test_random_state_and_buffers_are_as_after_one_forward_pass(name, accepted):
    def network():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3)
        ).double()

    x, y = case("mlp").batch
    one, other = network(), network()
    torch.manual_seed(1)
    one(x)
    expected = torch.rand(())
    trust = {"lr": 1e-3} if accepted else {"lr": 1e4}
    optimizer = OPTIMIZERS[name](other, **trust)
    torch.manual_seed(1)
    optimizer.step(lambda x, y: Categorical(other(x), y), x, y)
    assert optimizer.report.accepted is accepted
    assert torch.equal(torch.rand(()), expected)
    for a, b in zip(one.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_closure_that_fails_leaves_everything(name, call):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3))
    model.double()
    x, y = case("mlp").batch
    calls = []

    def closure(x, y):
        calls.append(1)
        found = Categorical(model(x), y)
        if len(calls) == call:
            raise ZeroDivisionError
        return found

    optimizer = OPTIMIZERS[name](model)
    before, random = bits(model), torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        optimizer.step(closure, x, y)
    assert same(before, bits(model)) and torch.equal(random, torch.get_rng_state())
    assert optimizer.report is None and optimizer.steps == 0


# Groups and parameters.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_and_unused_parameters_stay_and_gradients_are_not_written(name):
    row, optimizer = case("partly_frozen"), None
    row.model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    optimizer = OPTIMIZERS[name](row.model)
    for p in row.model.parameters():
        p.grad = torch.ones_like(p)
    before = {k: v.clone() for k, v in row.model.state_dict().items()}
    optimizer.step(row.drawn, *row.batch)
    assert optimizer.report.accepted
    for key, p in row.model.named_parameters():
        still = key.startswith("2.") or key == "unused"
        assert torch.equal(before[key], p.detach()) is still
        assert torch.equal(p.grad, torch.ones_like(p))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scheduler_sets_the_learning_rate(name):
    row, optimizer = made(name)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.step(row.drawn, *row.batch)
    scheduler.step()
    before = weights(row.model)
    twin = copy.deepcopy(row)
    whole = OPTIMIZERS[name](twin.model)
    whole.damping, whole.radius = optimizer.damping, optimizer.radius
    optimizer.step(row.drawn, *row.batch)
    whole.step(twin.drawn, *twin.batch)
    assert optimizer.report.accepted and whole.report.accepted
    torch.testing.assert_close(2 * (weights(row.model) - before), weights(twin.model) - before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_float32_and_fused_attention(name):
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    x, y = torch.randn(4, 5, 8), torch.randint(8, (4, 5))
    optimizer = OPTIMIZERS[name](model)
    found = [float(optimizer.step(lambda x, y: Categorical(model(x), y), x, y)) for _ in range(8)]
    assert found[-1] < found[0]
    with sdpa_kernel(SDPBackend.MATH):
        assert Categorical(model(x), y).losses().isfinite().all()
