"""Micro-batches: accumulated, they equal the one big batch."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from cases import case
from dense import relative
from f3eo import F3EO, DoubleBackward, MiniBatch, ModelSampled, PerSample, Ratio, Sign
from optimizer.helpers import batches, bits, everything, losses, network, weights

SIZES = [(3, 1, 2), (5, 1), (1, 1, 1, 1, 1, 1)]


def parts(batch, sizes):
    return zip(*(t.split(sizes) for t in batch), strict=True)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("base", [SGD, Adam])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_micro_batches_of_unequal_sizes_equal_the_big_batch(name, sizes, base, every):
    found = []
    for split in (False, True):
        row = case(name)
        optimizer = F3EO(
            row.model,
            base,
            lr=0.05,
            estimator=PerSample(DoubleBackward(), power=2),
            fraction=1,
            every=every,
        )
        values = []
        for _ in range(3):
            if split:
                batch = (torch.cat([t, t])[:6] for t in row.batch)
                for part in parts(batch, sizes):
                    optimizer.accumulate(row.losses, *part)
                loss = optimizer.step()
            else:
                loss = optimizer.step(row.losses, *(torch.cat([t, t])[:6] for t in row.batch))
            values += [loss, optimizer.trace]
        found.append((weights(row.model), torch.stack(values)))
    for whole, pieces in zip(*found, strict=True):
        assert relative(pieces, whole) < 1e-12


def test_exact_model_sampling_accumulates_to_the_big_batch_too():
    found = []
    for sizes in ((6,), (4, 2)):
        row = network()
        optimizer = F3EO(
            row.model, SGD, lr=0.1, estimator=ModelSampled(probes=None), fraction=1, every=1
        )
        for part in parts(row.batch, sizes):
            optimizer.accumulate(row.drawn, *part)
        optimizer.step()
        found.append(weights(row.model))
    assert relative(*found) < 1e-12


def test_at_strength_zero_accumulation_is_that_of_the_base():
    row, alone = network(), network()
    optimizer = F3EO(row.model, SGD, lr=0.1, strength=Ratio(0), fraction=1, every=1)
    plain = SGD(alone.model.parameters(), lr=0.1)
    for part in parts(row.batch, (2, 4)):
        optimizer.accumulate(row.losses, *part)
        (alone.losses(*part).sum() / 6).backward()
    optimizer.step()
    plain.step()
    assert relative(weights(row.model), weights(alone.model)) < 1e-14


def test_accumulating_changes_no_weight_and_returns_the_loss():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1, fraction=1, every=1)
    before = everything(row.model, optimizer)
    loss = optimizer.accumulate(row.losses, *row.batch)
    assert loss == row.losses(*row.batch).mean() and not loss.requires_grad
    assert {**everything(row.model, optimizer), "grads": before["grads"]} == before


def test_step_without_closure_needs_something_accumulated():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1, fraction=1, every=1)
    with pytest.raises(RuntimeError, match=r"accumulate\(closure, \*batch\)"):
        optimizer.step()
    optimizer.accumulate(row.losses, *row.batch)
    optimizer.step()
    with pytest.raises(RuntimeError, match="accumulate"):
        optimizer.step()
    assert optimizer.steps == 1


def test_step_with_a_closure_after_accumulate_is_refused():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1, fraction=1, every=1)
    optimizer.accumulate(row.losses, *row.batch)
    with pytest.raises(RuntimeError, match=r"step\(\) without arguments.*zero_grad\(\)"):
        optimizer.step(row.losses, *row.batch)
    optimizer.step()  # what was accumulated is still there


def test_zero_grad_drops_what_was_accumulated():
    row, other = network(), network()
    optimizer, clean = (
        F3EO(row.model, SGD, lr=0.1, fraction=1, every=1),
        F3EO(other.model, SGD, lr=0.1, fraction=1, every=1),
    )
    first, second = batches(2)
    optimizer.accumulate(row.losses, *first)
    optimizer.zero_grad()
    optimizer.step(row.losses, *second)
    clean.step(other.losses, *second)
    assert torch.equal(weights(row.model), weights(other.model))


def test_the_batch_estimator_is_refused_at_the_second_micro_batch():
    """H·g of a batch is not the sum over its parts."""
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1, estimator=MiniBatch(), fraction=1, every=1)
    optimizer.accumulate(row.losses, *row.batch)
    with pytest.raises(ValueError, match=r"second micro-batch.*PerSample\(\).*received MiniBatch"):
        optimizer.accumulate(row.losses, *row.batch)
    optimizer.step()


def test_batch_norm_is_refused_at_the_second_micro_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    optimizer = F3EO(model, SGD, lr=0.1, estimator=Sign(), fraction=1, every=1)
    optimizer.accumulate(losses(model), *batches(1)[0])
    with pytest.raises(ValueError, match=r"splits the batch, but 1 use.*GroupNorm"):
        optimizer.accumulate(losses(model), *batches(1)[0])


def test_a_micro_batch_that_fails_leaves_those_before_it():
    row, other = network(), network()
    optimizer, clean = (
        F3EO(row.model, SGD, lr=0.1, fraction=1, every=1),
        F3EO(other.model, SGD, lr=0.1, fraction=1, every=1),
    )
    optimizer.accumulate(row.losses, *row.batch)
    with pytest.raises(ZeroDivisionError):
        optimizer.accumulate(lambda x, y: 1 / 0, *row.batch)
    optimizer.step()
    clean.step(other.losses, *other.batch)
    assert torch.equal(weights(row.model), weights(other.model))


def test_one_bad_micro_batch_skips_the_whole_step():
    row = network()
    optimizer = F3EO(row.model, Adam, lr=0.1, fraction=1, every=1)
    before = bits(optimizer.base.state_dict()), weights(row.model)
    optimizer.accumulate(row.losses, *row.batch)
    x, y = row.batch
    optimizer.accumulate(lambda x, y: row.losses(x, y) * float("inf"), x, y)
    with pytest.warns(UserWarning, match="loss is not finite"):
        optimizer.step()
    assert torch.equal(weights(row.model), before[1])
    assert bits(optimizer.base.state_dict()) == before[0]
    optimizer.step(row.losses, *row.batch)


def test_accumulation_and_a_fraction():
    """∇L of all samples; h of a part of every micro-batch."""
    row = network()
    optimizer = F3EO(row.model, Adam, lr=0.05, fraction=0.5, betas=(0.0, 0.9), every=1)
    g = torch.autograd.grad(row.losses(*row.batch).mean(), list(row.model.parameters()))
    for part in parts(row.batch, (4, 2)):
        optimizer.accumulate(row.losses, *part)
    optimizer.step()
    for p, value in zip(row.model.parameters(), g, strict=True):
        assert relative(optimizer.base.state[p]["exp_avg"], value) < 1e-11
    assert optimizer.trace is not None


def test_accumulation_with_every_measures_in_all_micro_batches_or_in_none():
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.05, every=2, fraction=1)
    traces = []
    for _ in range(4):
        for part in parts(row.batch, (4, 2)):
            optimizer.accumulate(row.losses, *part)
        optimizer.step()
        traces.append(float(optimizer.trace))
    assert traces[0] == traces[1] != traces[2] == traces[3]


CHANGES = {
    "frozen": lambda model, optimizer: model[0].weight.requires_grad_(False),
    "thawed": lambda model, optimizer: model[2].weight.requires_grad_(True),
    "swapped": lambda model, optimizer: (
        model[0].weight.requires_grad_(False),
        model[2].weight.requires_grad_(True),
    ),
    "added": lambda model, optimizer: optimizer.add_param_group({"params": model[4].bias}),
}


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_other_parameters_than_those_accumulated_for_are_refused(name, again):
    row = network()
    row.model[2].weight.requires_grad_(False)
    optimizer = F3EO(
        [*row.model[:3].parameters(), row.model[4].weight], SGD, lr=0.1, fraction=1, every=1
    )
    optimizer.accumulate(row.losses, *row.batch)
    CHANGES[name](row.model, optimizer)
    before = weights(row.model)
    with pytest.raises(RuntimeError, match=r"frozen, thawed or added.*zero_grad\(\)"):
        optimizer.accumulate(row.losses, *row.batch) if again else optimizer.step()
    assert torch.equal(before, weights(row.model))
    optimizer.zero_grad()
    optimizer.step(row.losses, *row.batch)


class Outer:
    """Steps with a closure of its own where it is given none, as Lightning's optimizer does."""

    def __init__(self, inner, hook=None):
        self.inner, self.hook = inner, hook

    def step(self, closure=None):
        def called():
            result = closure() if closure is not None else None
            if self.hook is not None:
                self.hook()
            return result

        return self.inner.step(closure=called)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_a_wrapper_that_always_has_a_closure_steps_with_what_was_accumulated(clip):
    """Its closure is called, since that runs its hooks, and what they do to .grad counts."""
    found = []
    for wrapped in (True, False):
        model = network().model
        optimizer = F3EO(model, SGD, lr=0.1, fraction=1, every=1)

        def hook(model=model):
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)

        for batch in batches(3):
            optimizer.accumulate(losses(model), *batch)
            if wrapped:
                loss = Outer(optimizer, hook).step()
            else:
                hook()
                loss = optimizer.step()
            optimizer.zero_grad()
        assert optimizer.steps == 3
        found.append(torch.cat([weights(model), loss[None]]))
    assert torch.equal(*found)


def test_a_wrapper_that_always_has_a_closure_steps_with_the_users_too():
    model, twin = network().model, network().model
    batch = batches(1)[0]
    Outer(F3EO(model, SGD, lr=0.1)).step(lambda: losses(model)(*batch))
    F3EO(twin, SGD, lr=0.1).step(lambda: losses(twin)(*batch))
    assert torch.equal(weights(model), weights(twin))


def test_a_closure_with_losses_after_accumulating_is_refused_and_leaves_nothing_behind():
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    optimizer = F3EO(model, SGD, lr=0.1)
    x, y = torch.randn(6, 4), torch.arange(6) % 3
    optimizer.accumulate(losses(model), x, y)
    before = everything(model, optimizer)
    with pytest.raises(RuntimeError, match=r"step\(closure\) after accumulate\(\)"):
        optimizer.step(losses(model), x, y)
    assert before == everything(model, optimizer)
    optimizer.step()


def test_a_step_of_a_wrapper_without_anything_accumulated_says_what_is_missing():
    with pytest.raises(TypeError, match=r"received NoneType.*accumulate\(closure, \*batch\)"):
        Outer(F3EO(network().model, SGD, lr=0.1)).step()
