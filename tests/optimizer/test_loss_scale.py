"""Training through float16: the scale is found, adapts, is saved, and is the same everywhere."""

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, AdamW

from cases import WHOLE
from f3eo import F3EO, DoubleBackward, FiniteDifference, Fixed, LossScale, PerSample


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3)).to(dtype)


def batch(dtype=torch.float32, count=32):
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(count, 6, generator=draw), torch.randint(3, (count,), generator=draw)
    return x.to(dtype), y


def losses_of(model, size=1.0, autocast=torch.float16):
    def losses(x, y):
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            z = model(x)
        z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        return size * F.cross_entropy(z, y, reduction="none")

    return losses


def trained(scale, size, steps, dtype=torch.float32, autocast=torch.float16, **options):
    model = network(dtype)
    options = WHOLE | {"strength": Fixed(0.1), "lr": 0.5 / size} | options
    optimizer = F3EO(model, SGD, loss_scale=scale, **options)
    closure = losses_of(model, size, autocast)
    for _ in range(steps):
        optimizer.step(closure, *batch(dtype))
    return model, optimizer


def way(model):
    """How far the weights are from the first ones."""
    pairs = zip(model.parameters(), network().parameters(), strict=True)
    return torch.cat([(p - q).detach().double().flatten() for p, q in pairs])


@pytest.mark.parametrize("every", [1, 3])
def test_small_losses_train_as_in_float64_with_nothing_typed(every):
    """Losses of 1e-6 have no gradient in float16."""
    estimator = PerSample(DoubleBackward())
    options = {"every": every, "estimator": estimator}
    exact, _ = trained(None, 1e-6, 12, torch.float64, None, **options)
    found, optimizer = trained(None, 1e-6, 12, **options)
    assert optimizer.loss_scale.factor == 2**15 and optimizer.skipped == 0
    assert (way(found) - way(exact)).norm() < 0.01 * way(exact).norm()
    losses_of(model := network(), 1e-6)(*batch()).mean().backward()
    assert not any(p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("engine", [DoubleBackward(), FiniteDifference(central=True)])
def test_an_overflow_skips_the_step_and_halves_the_scale(engine, caplog):
    model, before = network(), network()
    scale = LossScale(2.0**60)
    optimizer = F3EO(
        model, AdamW, loss_scale=scale, estimator=PerSample(engine), on_nonfinite="raise", **WHOLE
    )
    seen = []
    with caplog.at_level(logging.INFO, "f3eo"):
        while not optimizer.steps:
            seen.append(scale.scale)
            loss = optimizer.step(losses_of(model), *batch())
            if not optimizer.steps:
                assert torch.equal(way(model), way(before))
                assert not optimizer.base.state
    assert float(loss) == pytest.approx(1.1, abs=0.2)
    assert optimizer.skipped == len(seen) - 1 > 10
    assert seen == [2.0 ** (60 - k) for k in range(len(seen))] and way(model).any()
    assert caplog.text.count("overflow float16 at a loss scale of") == optimizer.skipped


def test_the_scale_grows_after_its_interval():
    _, optimizer = trained(LossScale(64.0, interval=3), 1.0, 7)
    assert optimizer.loss_scale.factor == 256 and optimizer.loss_scale.passed == 1


def test_losses_that_are_not_finite_leave_the_scale_alone():
    model = network()
    optimizer = F3EO(model, SGD, lr=0.1, on_nonfinite="raise", **WHOLE)
    x, y = batch()
    with pytest.raises(FloatingPointError, match="the loss is not finite"):
        optimizer.step(losses_of(model), x * torch.nan, y)
    assert optimizer.loss_scale.scale == 2**15


def test_in_other_precisions_there_is_no_scale():
    for autocast in (None, torch.bfloat16):
        _, optimizer = trained(None, 1.0, 3, autocast=autocast)
        assert optimizer.loss_scale.factor == 1 and optimizer.loss_scale.passed == 0
    model = network()
    optimizer = F3EO(model, SGD, lr=0.1, loss_scale=2.0**60, on_nonfinite="raise", **WHOLE)
    with pytest.raises(FloatingPointError, match="the gradient is not finite"):
        optimizer.step(lambda x, y: (0 * model(x).sum(1)).abs().sqrt(), *batch())


def test_a_resumed_run_ends_as_the_whole_one_bit_for_bit():
    """Also of the scale, which halves in the first half of the run and grows in the second."""

    def run(optimizer, model, steps):
        for _ in range(steps):
            optimizer.step(losses_of(model), *batch())

    def make(model):
        scale = LossScale(2.0**30, interval=12)
        return F3EO(model, AdamW, lr=0.01, loss_scale=scale, generator=torch.Generator())

    model = network()
    optimizer = make(model)
    run(optimizer, model, 30)
    skipped = optimizer.skipped
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    run(optimizer, model, 30)
    twin = network()
    resumed = make(twin)
    twin.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    assert resumed.loss_scale.scale == 2.0 ** (30 - skipped) * 2 ** ((30 - skipped) // 12)
    run(resumed, twin, 30)
    assert torch.equal(way(model), way(twin)) and skipped > 3
    assert resumed.loss_scale.counters() == optimizer.loss_scale.counters()
    assert resumed.skipped == optimizer.skipped


def test_micro_batches_equal_the_one_batch():
    found = []
    for parts in (1, 4):
        model = network()
        optimizer = F3EO(model, SGD, lr=0.5e6, estimator=PerSample(DoubleBackward()), **WHOLE)
        x, y = batch()
        for xs, ys in zip(x.chunk(parts), y.chunk(parts), strict=True):
            optimizer.accumulate(losses_of(model, 1e-6), xs, ys)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-7)
        optimizer.step()
        found.append(way(model))
    assert (found[0] - found[1]).norm() < 1e-3 * found[1].norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_of_16_bits_are_trained(dtype):
    """To the rounding of the weights."""
    options = {"strength": Fixed(0.1), "estimator": PerSample()}
    exact, _ = trained(None, 1.0, 10, torch.float64, None, **options)
    found, optimizer = trained(None, 1.0, 10, dtype, None, **options)
    assert {p.dtype for p in found.parameters()} == {dtype} and optimizer.skipped <= 1
    bound = 0.02 if dtype is torch.float16 else 0.1
    assert (way(found) - way(exact)).norm() < bound * way(exact).norm()
    assert (optimizer.loss_scale.factor > 1) == (dtype is torch.float16)


def test_a_scaler_is_taken_for_its_numbers():
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0, growth_interval=7)
    optimizer = F3EO(network(), SGD, lr=0.1, loss_scale=scaler)
    assert repr(optimizer.loss_scale) == "LossScale(512.0, interval=7)"
    with pytest.raises(TypeError, match="loss_scale is a LossScale"):
        F3EO(network(), SGD, lr=0.1, loss_scale="dynamic")
