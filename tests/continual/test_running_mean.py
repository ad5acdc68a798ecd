"""The running mean of ∇L against means and projections of flat vectors."""

import pytest
import torch
from torch.optim import SGD, AdamW

from continual.truths import (
    NOW,
    THEN,
    batch,
    both_gradients,
    filled,
    flat,
    losses_of,
    network,
    optimizer_of,
    recorded,
)
from f3eo import Coupled, Decoupled, Fixed
from f3eo.continual import Rehearsal, RunningMean

STEPS = NOW, THEN, batch(5, 3), batch(7, 4)


def off(h, along):
    """h less its part in the span of some vectors."""
    q, _ = torch.linalg.qr(torch.stack(along, 1))
    return h - q @ (q.T @ h)


@pytest.mark.parametrize("rate", [0.0, 0.9])
@pytest.mark.parametrize("rule", [Decoupled(), Coupled()], ids=["decoupled", "coupled"])
def test_the_direction_leaves_the_batch_and_the_mean_alone(rule, rate):
    model = network()
    optimizer = optimizer_of(model, RunningMean(rate), rule=rule)
    mean = None
    for x, y in STEPS:
        start, (g, h) = flat(model.parameters()), both_gradients(model, x, y)
        optimizer.step(losses_of(model), x, y)
        d = (start - flat(model.parameters())) / 0.1 - g  # SGD moves by −lr (g + λ d)
        along = [g] if isinstance(rule, Decoupled) or mean is not None else []
        truth = off(h, [*along, *([] if mean is None else [mean])]) if along else h
        assert torch.allclose(d, 0.5 * truth, rtol=1e-9, atol=1e-12)
        mean = (1 - rate) * g + (0 if mean is None else rate * mean)


def test_in_the_metric_of_adamw_too():
    model, bare = network(), network()
    optimizer = optimizer_of(model, RunningMean(), base=AdamW, lr=1e-2, strength=Fixed(3.0))
    plain = AdamW(bare.parameters(), lr=1e-2)
    gradients = []
    for x, y in STEPS[:2]:
        bare.load_state_dict(model.state_dict())
        gradients.append(both_gradients(model, x, y)[0])
        optimizer.step(losses_of(model), x, y)
        plain.zero_grad()
        losses_of(bare)(x, y).mean().backward()
        plain.step()
    moved = flat(model.parameters()) - flat(bare.parameters())  # −lr λ D d
    assert moved.norm() > 1e-3
    for gradient in gradients:
        assert abs(torch.dot(gradient, moved)) <= 1e-12 * gradient.norm() * moved.norm()


def test_a_base_that_writes_into_the_gradient_does_not_reach_the_mean():
    """SGD with Nesterov's momentum adds to the gradients that it is given."""
    part = RunningMean(0.5)
    model = network()
    optimizer = optimizer_of(model, part, SGD, momentum=0.9, nesterov=True)
    (g, _) = both_gradients(model, *NOW)
    optimizer.step(losses_of(model), *NOW)
    kept = part.state_dict(list(model.parameters()))["mean"]
    assert torch.allclose(flat(kept), 0.5 * g, rtol=1e-12)


def test_a_skipped_step_does_not_count():
    model, part = network(), RunningMean()
    optimizer = optimizer_of(model, part)
    optimizer.step(losses_of(model), *NOW)
    before = flat(part.state_dict(list(model.parameters()))["mean"])
    x, y = THEN
    with pytest.warns(UserWarning, match="not finite"):
        optimizer.step(losses_of(model), x * float("inf"), y)
    assert torch.equal(flat(part.state_dict(list(model.parameters()))["mean"]), before)


def test_a_group_that_maximizes_turns_its_part_of_the_mean():
    """Of one group alone: turned in both, a mean has the same span."""
    model = network()
    last = {"params": list(model[2].parameters()), "maximize": True}
    optimizer = optimizer_of([{"params": list(model[0].parameters())}, last], RunningMean(0.5))
    ones = [torch.ones_like(flat(layer.parameters())) for layer in (model[0], model[2])]
    signs, mean = torch.cat([ones[0], -ones[1]]), torch.tensor(0.0)
    for x, y in STEPS:
        start, (g, h) = flat(model.parameters()), both_gradients(model, x, y)
        optimizer.step(losses_of(model), x, y)
        d = (start - flat(model.parameters())) / 0.1 - signs * g
        along = [signs * g, signs * mean] if mean.ndim else [signs * g]
        assert torch.allclose(d, 0.5 * off(h, along), rtol=1e-9, atol=1e-12)
        mean = 0.5 * mean + 0.5 * g


def test_it_joins_after_a_rehearsal():
    """d leaves alone the batch, the rehearsed one, and the mean of the batches before."""
    model = network()
    optimizer = optimizer_of(model, [Rehearsal(filled()), RunningMean()])
    first = both_gradients(model, *NOW)[0]
    optimizer.step(losses_of(model), *NOW)
    (g, _) = both_gradients(model, *STEPS[2])
    (record,) = recorded(optimizer, (losses_of(model), *STEPS[2]))
    d = flat(record.structure)
    for gradient in (g, first):
        assert abs(torch.dot(gradient, d)) <= 1e-11 * gradient.norm() * d.norm()


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_its_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate in \[0, 1\), received"):
        RunningMean(rate)
