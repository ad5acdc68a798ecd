"""Rehearsal against gradients of both batches by hand, and the passes that it takes."""

import copy
import warnings

import pytest
import torch
from torch.optim import SGD, AdamW

from continual.truths import (
    NOW,
    THEN,
    both_gradients,
    exact,
    filled,
    flat,
    losses_of,
    network,
    optimizer_of,
    recorded,
)
from f3eo import F3EO, Coupled, Decoupled, Fixed, PerSample
from f3eo.continual import Rehearsal, Reservoir


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.5, 2.0), (0.0, 1.0), (1.0, 0.0)])
def test_it_descends_the_sums_of_both_batches_gradients(a, b, power):
    model = network()
    (g, h), (gm, hm) = (both_gradients(model, *x, power) for x in (NOW, THEN))
    part = Rehearsal(filled(), 4, loss=a, structure=b, decouple=False)
    optimizer = optimizer_of(model, part, estimator=exact(power))
    (record,) = recorded(optimizer, (losses_of(model), *NOW))
    assert torch.allclose(flat(record.gradient), g + a * gm, rtol=1e-12, atol=1e-14)
    assert torch.allclose(flat(record.structure), h + b * hm, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("rule", [Decoupled(), Coupled()], ids=["decoupled", "coupled"])
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)])
def test_decoupled_the_structure_direction_leaves_both_losses_alone(a, b, rule):
    model = network()
    start, (g, h), (gm, hm) = (
        flat(model.parameters()),
        *(both_gradients(model, *x) for x in (NOW, THEN)),
    )
    part = Rehearsal(filled(), 4, loss=a, structure=b)
    optimizer = optimizer_of(model, part, rule=rule)
    optimizer.step(losses_of(model), *NOW)
    # What the step adds to the descent of the losses is −lr λ d.
    d = (start - flat(model.parameters())) / 0.1 - (g + a * gm)
    q, _ = torch.linalg.qr(torch.stack([g, gm], 1))
    truth = h + b * hm - q @ (q.T @ (h + b * hm))
    assert torch.allclose(d, 0.5 * truth, rtol=1e-9, atol=1e-13)
    for gradient in (g, gm):
        assert abs(torch.dot(gradient, d)) <= 1e-12 * gradient.norm() * start.norm()


def test_the_record_holds_the_direction_to_rounding():
    model = network()
    (g, _), (gm, _) = (both_gradients(model, *x) for x in (NOW, THEN))
    (record,) = recorded(optimizer_of(model, Rehearsal(filled())), (losses_of(model), *NOW))
    d = flat(record.structure)
    for gradient in (g, gm):
        assert abs(torch.dot(gradient, d)) <= 1e-12 * gradient.norm() * d.norm()
    assert float(record.distance) == pytest.approx(float(d.norm()))


def test_over_adamw_both_losses_are_left_alone_in_its_metric():
    model = network()
    (g, _), (gm, _) = (both_gradients(model, *x) for x in (NOW, THEN))
    plain = copy.deepcopy(model)
    optimizer_of(model, Rehearsal(filled()), AdamW, lr=1.0, strength=Fixed(3.0)).step(
        losses_of(model), *NOW
    )
    base, place = AdamW(plain.parameters(), lr=1.0), 0
    for p in plain.parameters():
        p.grad = (g + gm)[place : place + p.numel()].view_as(p).clone()
        place += p.numel()
    base.step()
    moved = flat(model.parameters()) - flat(plain.parameters())  # −lr λ D d
    assert moved.norm() > 0.1
    for gradient in (g, gm):
        assert abs(torch.dot(gradient, moved)) <= 1e-12 * gradient.norm() * moved.norm()


def test_the_memory_takes_in_the_batch_after_the_step():
    model, part = network(), Rehearsal(Reservoir(50), 3)
    optimizer = optimizer_of(model, part)
    optimizer.step(losses_of(model), *NOW)
    assert len(part.memory) == 6 and part.last_loss is None
    optimizer.step(losses_of(model), *THEN)
    assert len(part.memory) == 10 and part.last_loss is not None


def test_without_an_earlier_batch_a_step_is_that_without_a_past():
    models = network(), network()
    for model, past in zip(models, (Rehearsal(Reservoir(9)), ()), strict=True):
        optimizer_of(model, past).step(losses_of(model), *NOW)
    assert torch.equal(flat(models[0].parameters()), flat(models[1].parameters()))


def counted(model, calls):
    def losses(x, y):
        calls.append(len(x))
        return losses_of(model)(x, y)

    return losses


@pytest.mark.parametrize(
    ("options", "measured", "between"),
    [({}, True, True), ({"loss": 0}, True, False), ({"structure": 0}, True, True)],
)
def test_a_pass_that_is_not_needed_is_not_made(options, measured, between):
    model, calls = network(), []
    part = Rehearsal(filled(100), 3, **options)
    optimizer = optimizer_of(model, part, every=2)
    for expected in (measured, between):
        calls.clear()
        optimizer.step(counted(model, calls), *NOW)
        assert (3 in calls) == expected


def test_both_at_zero_take_no_batch():
    model, calls = network(), []
    optimizer = optimizer_of(model, Rehearsal(filled(100), 3, loss=0, structure=0))
    optimizer.step(counted(model, calls), *NOW)
    assert set(calls) == {6} and len(optimizer.past.memory) == 10


def test_at_a_strength_of_zero_it_is_experience_replay():
    model, plain = network(), network()
    optimizer_of(model, Rehearsal(filled()), strength=Fixed(0.0)).step(losses_of(model), *NOW)
    base = SGD(plain.parameters(), lr=0.1)
    (losses_of(plain)(*NOW).mean() + losses_of(plain)(*THEN).mean()).backward()
    base.step()
    assert torch.allclose(flat(model.parameters()), flat(plain.parameters()), rtol=1e-14)


def test_loss_trace_and_observed_numbers_are_those_of_the_batch():
    model, alone = network(), network()
    part = Rehearsal(filled())
    optimizer, other = optimizer_of(model, part), optimizer_of(alone, ())
    records = recorded(optimizer, (losses_of(model), *NOW))
    loss = other.step(losses_of(alone), *NOW)
    assert torch.equal(records[0].loss, loss) and torch.equal(optimizer.trace, other.trace)
    assert records[0].factor is None
    own = losses_of(network())(*THEN).mean().detach()
    assert float(part.last_loss) == pytest.approx(float(own))
    both = optimizer_of(network(), ())
    both.step(losses_of(both.model), *THEN)
    assert float(part.last_trace) == pytest.approx(float(both.trace))


def test_closures_without_samples_are_refused_with_the_cure():
    model = network()
    optimizer = optimizer_of(model, Rehearsal(Reservoir(3)))
    start = flat(model.parameters())
    with pytest.raises(
        ValueError, match=r"is given none: pass the batch, step\(closure, \*batch\)"
    ):
        optimizer.step(lambda: losses_of(model)(*NOW))
    assert torch.equal(flat(model.parameters()), start)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match=r"Reservoir\(500\), received 500"):
        Rehearsal(500)  # pyright: ignore
    with pytest.raises(ValueError, match="finite structure >= 0, received -1"):
        Rehearsal(Reservoir(3), structure=-1)
    with pytest.raises(ValueError, match="samples must be > 0, received 0"):
        Rehearsal(Reservoir(3), 0)
    with pytest.raises(TypeError, match=r"past must be a part or a sequence of them.*received 7"):
        F3EO(network(), SGD, lr=0.1, past=7)  # pyright: ignore


def test_the_repr_names_the_past():
    part = Rehearsal(Reservoir(3), loss=0.5)
    optimizer = F3EO(network(), SGD, lr=0.1, past=part, estimator=PerSample())
    assert "past=Rehearsal(Reservoir(3), loss=0.5)" in repr(optimizer)


def test_no_part_warns_of_anything():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = optimizer_of(network(), Rehearsal(filled()))
        optimizer.step(losses_of(optimizer.model), *NOW)
