"""Accelerate's loop with F3EO equals the plain loop, bit for bit."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

accelerate = pytest.importorskip("accelerate")

from accelerate.state import AcceleratorState, GradientState  # noqa: E402

from f3eo import LossScale  # noqa: E402
from f3eo.integrations.accelerate import backward  # noqa: E402
from integrations.small import loader, losses_of, network, optimizer_of, vector  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning")


@pytest.fixture(autouse=True)
def alone():
    """Accelerate keeps its settings beyond an Accelerator."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def plain_loop(parts, norm=None, epochs=1):
    model = network()
    optimizer = optimizer_of(model)
    schedule, pending = StepLR(optimizer, 3), [*loader()] * epochs
    for start in range(0, len(pending), parts):
        for x, y in pending[start : start + parts]:
            optimizer.accumulate(losses_of(model), x, y)
        if norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
        optimizer.step()
        schedule.step()
    return model, optimizer


def parts_of(order, parts):
    """Model, optimizer, loader and scheduler, prepared in this order, and the accelerator."""
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=parts)
    model = network()
    optimizer = optimizer_of(model)
    made = {"model": model, "optimizer": optimizer, "data": loader()}
    made["scheduler"] = StepLR(optimizer, 3)
    ready = dict(zip(order, accelerator.prepare(*(made[name] for name in order)), strict=True))
    return (accelerator, *(ready[name] for name in made))


def epoch(accelerator, model, optimizer, data, scheduler, norm=None):
    for x, y in data:
        with accelerator.accumulate(model):
            backward(optimizer, losses_of(model), x, y)
            if accelerator.sync_gradients and norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()


def accelerated_loop(order, parts, norm=None, epochs=1):
    made = parts_of(order, parts)
    for _ in range(epochs):
        epoch(*made, norm=norm)
    accelerator, model, optimizer, *_ = made
    return accelerator, model, optimizer


ORDER = ("model", "optimizer", "data", "scheduler")


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("norm", [None, 0.1])
def test_the_loop_equals_the_plain_one(parts, norm):
    _, model, optimizer = accelerated_loop(ORDER, parts, norm)
    expected, plain = plain_loop(parts, norm)
    assert optimizer.optimizer.steps == plain.steps == -(-6 // parts)
    assert optimizer.param_groups[0]["lr"] == plain.param_groups[0]["lr"]
    assert torch.equal(vector(model), vector(expected))


@pytest.mark.parametrize("order", [*permutations(ORDER)], ids=" ".join)
def test_prepare_takes_any_order(order):
    _, model, _ = accelerated_loop(order, 2)
    assert torch.equal(vector(model), vector(plain_loop(2)[0]))


def test_the_model_may_be_prepared_alone():
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = network()
    optimizer = accelerator.prepare(optimizer_of(model))
    model, data = accelerator.prepare(model), accelerator.prepare(loader())
    scheduler = accelerator.prepare(StepLR(optimizer.optimizer, 3))
    epoch(accelerator, model, optimizer, data, scheduler)
    assert torch.equal(vector(model), vector(plain_loop(2)[0]))


def test_a_saved_state_is_resumed(tmp_path):
    accelerator, model, _ = accelerated_loop(ORDER, 2)
    accelerator.save_state(str(tmp_path))
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    accelerator, model, optimizer, data, scheduler = parts_of(ORDER, 2)
    accelerator.load_state(str(tmp_path))
    epoch(accelerator, model, optimizer, data, scheduler)
    expected, plain = plain_loop(2, epochs=2)
    assert optimizer.optimizer.steps == plain.steps == 6
    assert torch.equal(vector(model), vector(expected))


def test_the_loss_is_divided_by_no_number_of_micro_batches():
    accelerator, model, optimizer, data, _ = parts_of(ORDER, 4)
    x, y = next(iter(data))
    with accelerator.accumulate(model):
        loss = backward(optimizer, losses_of(model), x, y)
    assert float(loss) == float(losses_of(model)(x, y).mean().detach())


def test_a_closure_that_would_be_lost_is_refused_with_the_cure():
    accelerator, model, optimizer, data, _ = parts_of(ORDER, 2)
    before = vector(model)
    with pytest.raises(RuntimeError, match=r"2 micro-batches.*f3eo\.integrations\.accelerate"):
        for x, y in data:
            with accelerator.accumulate(model):
                optimizer.step(lambda x=x, y=y: losses_of(model)(x, y))
    assert torch.equal(vector(model), before)


def test_a_loop_beside_accelerate_is_left_alone():
    parts_of(ORDER, 2)
    model = network()
    optimizer = optimizer_of(model)
    for x, y in loader():
        optimizer.step(losses_of(model), x, y)
    assert optimizer.steps == 6


def test_accelerators_own_backward_is_refused_with_the_cure():
    accelerator, model, optimizer, data, _ = parts_of(ORDER, 1)
    x, y = next(iter(data))
    accelerator.backward(losses_of(model)(x, y).mean())
    with pytest.raises(RuntimeError, match=r"in place of accelerator\.backward\(loss\)"):
        optimizer.step()


def test_what_backward_does_not_train_is_refused():
    _, model, *_ = parts_of(ORDER, 1)
    with pytest.raises(TypeError, match=r"needs an F3EO.*received SGD"):
        backward(SGD(model.parameters(), lr=0.1), losses_of(model))


# float16: Accelerate has it on accelerators alone; its scaler is put here as it would be there.


class Loop:
    """Accelerate's loop in float16, with a GradScaler whose numbers are its own."""

    def __init__(self):
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        self.accelerator = accelerate.Accelerator(
            cpu=True, gradient_accumulation_steps=2, mixed_precision="fp16"
        )
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=9)
        self.accelerator.native_amp = True
        model = network().float()
        self.model = model
        self.own = optimizer_of(model)
        self.optimizer, self.data = self.accelerator.prepare(self.own, loader())

    def epoch(self):
        accelerator, optimizer, model = self.accelerator, self.optimizer, self.model
        for x, y in self.data:
            with accelerator.accumulate(model):
                backward(optimizer, half_losses_of(model), x.float(), y)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                optimizer.zero_grad()


def half_losses_of(model):
    def losses(x, y):
        with torch.autocast("cpu", torch.float16):
            z = model(x)
        return F.cross_entropy(z.float(), y, reduction="none")

    return losses


def plain_half(epochs):
    model = network().float()
    optimizer = optimizer_of(model)
    optimizer.loss_scale = scale = LossScale(2.0**40, interval=9)
    optimizer._scale, optimizer._notices._scale = scale, scale
    for _ in range(epochs):
        pending = [*loader()]
        for start in range(0, len(pending), 2):
            for x, y in pending[start : start + 2]:
                optimizer.accumulate(half_losses_of(model), x.float(), y)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    return model, optimizer


def test_a_scaler_gives_its_numbers_and_has_no_effect_of_its_own(tmp_path):
    """Equal to the plain loop bit for bit, with clipping, overflow, growth and a saved state."""
    loop = Loop()
    for _ in range(12):
        loop.epoch()
    assert loop.accelerator.scaler.get_scale() == 1 and loop.accelerator.scaler.is_enabled()
    loop.accelerator.save_state(str(tmp_path))
    resumed = Loop()
    resumed.accelerator.load_state(str(tmp_path))
    resumed.model.load_state_dict(loop.model.state_dict())  # it was not prepared
    for each in (loop, resumed):
        for _ in range(4):
            each.epoch()
    expected, plain = plain_half(16)
    assert plain.skipped > 10 and plain.steps > 12
    for each in (loop, resumed):
        assert each.own.loss_scale.counters() == plain.loss_scale.counters()
        assert (each.own.steps, each.own.skipped) == (plain.steps, plain.skipped)
        assert torch.equal(vector(each.model), vector(expected))


def test_numbers_of_ones_own_go_before_those_of_a_scaler():
    loop = Loop()
    loop.own.loss_scale.take(LossScale(64.0))
    loop.epoch()
    assert loop.own.loss_scale.factor == 64
