"""A step that fails leaves no trace, and one that succeeds leaves that of one forward pass."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam

from cases import WHOLE
from f3eo import (
    F3EO,
    Categorical,
    DoubleBackward,
    FiniteDifference,
    MiniBatch,
    ModelSampled,
    PerSample,
    Sign,
)
from optimizer.helpers import batches, bits, everything, losses, weights

ENGINES = {
    "batch": lambda: MiniBatch(),
    "batch, differences": lambda: MiniBatch(FiniteDifference()),
    "batch, central": lambda: MiniBatch(FiniteDifference(central=True)),
    "sign": lambda: Sign(),
    "sign, differences": lambda: Sign(FiniteDifference()),
}
PER_SAMPLE = {"exact": PerSample, "differences": lambda: None, "model": ModelSampled}
ALL = ENGINES | {"exact": PerSample, "differences": lambda: None}


class Noisy(nn.Module):
    """Everything that a forward pass may change: statistics, counters, random numbers."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.norm = nn.Linear(5, 8), norm
        self.last, self.drop = nn.Linear(8, 3), nn.Dropout(0.5)
        self.register_buffer("written", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("late", None)
        self.masks = []

    def forward(self, x):
        self.written += 1
        self.replaced = self.replaced + 1
        self.late = self.replaced.clone()
        z = self.drop(torch.ones(len(x), 8, dtype=x.dtype))
        if torch.is_grad_enabled():  # else it is looked whether the samples are coupled
            self.masks.append(z.tolist())
        return self.last(torch.tanh(self.norm(self.first(x))) * z)


def made(estimator=None, norm=None, base=Adam, **options):
    torch.manual_seed(0)
    model = Noisy(norm or nn.GroupNorm(2, 8)).double()
    generator = torch.Generator().manual_seed(2)
    return model, F3EO(
        model, base, lr=0.02, estimator=estimator, generator=generator, **WHOLE | options
    )


class Thrown(BaseException):
    """Not an Exception: KeyboardInterrupt is none either."""


FAILURES = {  # options, and at which call of the closure it fails
    "defaults": ({}, 1),
    "defaults, off the weights": ({}, 2),
    "fraction, off the weights": ({"fraction": 0.5}, 2),
    "fraction, first part": ({"fraction": 0.5}, 1),
    "fraction, the rest": ({"fraction": 0.5}, 3),
    "fraction, checked": ({"fraction": 0.5}, 1),
    "fraction, part checked": ({"fraction": 0.5}, 2),
    "chunk": ({"chunk": 2}, 3),
    "sign, checked": ({"estimator": Sign()}, 2),
    "exact, fraction": ({"estimator": PerSample(DoubleBackward(), power=2), "fraction": 0.5}, 2),
    "model": ({"estimator": ModelSampled()}, 1),
    "double backward": ({"estimator": MiniBatch()}, 1),
    "differences, at the weights": ({"estimator": MiniBatch(FiniteDifference())}, 1),
    "differences, off the weights": ({"estimator": MiniBatch(FiniteDifference())}, 2),
    "central": ({"estimator": MiniBatch(FiniteDifference(central=True))}, 3),
    "sign, second half": ({"estimator": Sign()}, 2),
    "sign, differences": ({"estimator": Sign(FiniteDifference())}, 3),
    "sign, differences, last": ({"estimator": Sign(FiniteDifference())}, 4),
}


@pytest.mark.parametrize("warm", [0, 1])
@pytest.mark.parametrize("name", FAILURES)
def test_a_closure_that_throws_leaves_everything_as_before(name, warm):
    """Weights, buffers, random states, .grad (the very tensors), base and own state."""
    options, when = FAILURES[name]
    checking = "checked" in name
    model, optimizer = made(**options, every=2)
    batch = batches(1)[0]
    for _ in range(2 * warm):
        optimizer.step(lambda x, y: Categorical(model(x), y), *batch)
    model.first.weight.grad = torch.ones_like(model.first.weight)
    model.last.weight.grad = None
    grads = [p.grad for p in model.parameters()]
    before = everything(model, optimizer)
    calls = []

    def closure(x, y):
        if torch.is_grad_enabled() or checking:
            calls.append(len(x))
        z = model(x)
        if len(calls) == when:
            raise Thrown
        return Categorical(z, y)

    with pytest.raises(Thrown):
        optimizer.step(closure, *batch)
    assert len(calls) == when
    assert everything(model, optimizer) == before
    assert all(a is b for a, b in zip(grads, (p.grad for p in model.parameters()), strict=True))
    assert not any(
        key.startswith("_f3eo") for t in batch for key in t.__dict__
    )  # no marks on the user's data
    when = 0
    optimizer.step(closure, *batch)  # and the next step works
    assert optimizer.steps == 2 * warm + 1


def test_a_closure_that_throws_after_a_chunk_drops_that_chunk():
    model, optimizer = made(chunk=2)
    with pytest.raises(ZeroDivisionError):
        optimizer.step(
            lambda x, y: losses(model)(x, y) / (len(model.masks) < 2 or 1 // 0), *batches(1)[0]
        )
    with pytest.raises(RuntimeError, match="accumulate"):
        optimizer.step()


@pytest.mark.parametrize("name", ENGINES)
def test_batch_norm_updates_its_statistics_exactly_once_a_step(name):
    model, optimizer = made(ENGINES[name](), nn.BatchNorm1d(8), SGD)
    alone, _ = made(norm=nn.BatchNorm1d(8))
    for k, batch in enumerate(batches(3)):
        alone.load_state_dict(model.state_dict())
        alone(batch[0])
        optimizer.step(losses(model), *batch)
        assert bits(dict(model.named_buffers())) == bits(dict(alone.named_buffers()))
        assert model.norm.num_batches_tracked == k + 1


@pytest.mark.parametrize("name", ENGINES)
def test_batch_norm_trains_where_samples_may_mix(name):
    model, optimizer = made(ENGINES[name](), nn.BatchNorm1d(8))
    model.drop.p = 0.0
    batch = batches(1, 12)[0]
    found = [float(optimizer.step(losses(model), *batch)) for _ in range(40)]
    assert optimizer.skipped == 0 and found[-1] < 0.5 * found[0]


@pytest.mark.parametrize("name", PER_SAMPLE)
def test_batch_norm_in_training_is_refused_where_they_may_not(name):
    model, optimizer = made(PER_SAMPLE[name](), nn.BatchNorm1d(8))
    before = everything(model, optimizer)
    with pytest.raises(
        ValueError, match=r"norm normalise.*GroupNorm.*\.eval\(\).*estimator=MiniBatch\(\)"
    ):
        optimizer.step(losses(model), *batches(1)[0])
    assert everything(model, optimizer) == before


def test_a_batch_norm_that_the_optimizer_does_not_know_of_is_refused_too():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    optimizer = F3EO(model.parameters(), SGD, lr=0.1, fraction=1, every=1)
    with pytest.raises(ValueError, match=r"BatchNorm normalise.*GroupNorm"):
        optimizer.step(losses(model), *batches(1)[0])


def test_frozen_batch_norm_is_trained_per_sample():
    model, optimizer = made(PerSample(DoubleBackward(), power=2), nn.BatchNorm1d(8))
    model.norm.eval()
    before = bits(model.norm.running_mean)
    optimizer.step(losses(model), *batches(1)[0])
    assert bits(model.norm.running_mean) == before and model.norm.weight.grad is not None


def test_training_mode_ends_the_freeze_of_batch_norm_with_a_refusal():
    model, optimizer = made(PerSample(DoubleBackward(), power=2), nn.BatchNorm1d(8))
    model.norm.eval()
    optimizer.step(losses(model), *batches(1)[0])
    model.train()
    before = everything(model, optimizer)
    with pytest.raises(ValueError, match=r"norm normalise.*\.eval\(\).*after every model\.train"):
        optimizer.step(losses(model), *batches(1)[0])
    assert everything(model, optimizer) == before


@pytest.mark.parametrize("name", ALL)
def test_all_evaluations_of_a_step_see_one_dropout_mask_and_steps_differ(name):
    model, optimizer = made(ALL[name]())
    batch = batches(1)[0]
    masks = []
    for _ in range(3):
        model.masks.clear()
        optimizer.step(losses(model), *batch)
        seen = {len(m): m for m in model.masks}
        if name.startswith("sign") and len(model.masks) > 2:  # both halves, then both again
            assert model.masks[:2] == model.masks[2:]
        elif not name.startswith("sign"):
            assert all(m == model.masks[0] for m in model.masks)
        masks.append(seen)
    assert masks[0] != masks[1] != masks[2]


@pytest.mark.parametrize("name", ALL)
def test_a_step_draws_the_random_numbers_of_one_forward_pass(name):
    model, optimizer = made(ALL[name]())
    x, y = batches(1)[0]
    torch.manual_seed(3)
    optimizer.step(losses(model), x, y)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    halves = [len(m) for m in model.masks[:2]] if name.startswith("sign") else [len(x)]
    for rows in halves:
        F.dropout(torch.ones(rows, 8, dtype=x.dtype))
    assert torch.equal(after, torch.get_rng_state())


def test_a_backward_in_the_closure_is_found_and_undone():
    model, optimizer = made()
    optimizer.step(losses(model), *batches(1)[0])
    before = everything(model, optimizer)

    def closure(x, y):
        result = losses(model)(x, y)
        result.mean().backward()
        return result

    with pytest.raises(RuntimeError, match=r"called backward\(\).*return the per-sample losses"):
        optimizer.step(closure, *batches(1)[0])
    assert everything(model, optimizer) == before


def test_zero_grad_in_the_closure_is_harmless():
    model, optimizer = made()

    def closure(x, y):
        optimizer.zero_grad()
        return losses(model)(x, y)

    before = weights(model)
    optimizer.step(closure, *batches(1)[0])
    assert not torch.equal(before, weights(model))
