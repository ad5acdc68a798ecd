"""Where what is rehearsed joins a step: micro-batches, clipping, what is not finite, groups."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from cases import WHOLE
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
)
from f3eo import F3EO, Coupled, Fixed, MiniBatch, Weighted
from f3eo.continual import Rehearsal, Reservoir


def test_micro_batches_are_joined_once_and_all_taken_in():
    model, whole = network(), network()
    part, other = Rehearsal(filled(100), 4), Rehearsal(filled(100), 4)
    optimizer, at_once = optimizer_of(model, part), optimizer_of(whole, other)
    x, y = NOW
    optimizer.accumulate(losses_of(model), x[:3], y[:3])
    optimizer.accumulate(losses_of(model), x[3:], y[3:])
    optimizer.step()
    at_once.step(losses_of(whole), x, y)
    a, b = flat(model.parameters()), flat(whole.parameters())
    assert torch.allclose(a, b, rtol=1e-12)
    assert len(part.memory) == 10


def test_clipping_before_the_step_scales_the_batch_alone_and_max_norm_all():
    model = network()
    (g, h), (gm, hm) = (both_gradients(model, *x) for x in (NOW, THEN))
    optimizer = optimizer_of(model, Rehearsal(filled(), 4, decouple=False), rule=Coupled())
    start = flat(model.parameters())
    optimizer.accumulate(losses_of(model), *NOW)
    for p in model.parameters():
        p.grad.mul_(0.25)
    optimizer.step()
    moved = (start - flat(model.parameters())) / 0.1
    assert torch.allclose(moved, 0.25 * (g + 0.5 * h) + gm + 0.5 * hm, rtol=1e-9, atol=1e-12)
    model = network()
    part = Rehearsal(filled(), 4, decouple=False)
    clipped = optimizer_of(model, part, rule=Coupled(), max_norm=0.01)
    clipped.step(losses_of(model), *NOW)
    moved = (start - flat(model.parameters())) / 0.1
    factor = 0.01 / ((g + gm).norm() + 1e-6)
    assert torch.allclose(moved, factor * (g + gm + 0.5 * (h + hm)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", [0.0, 1.0])
def test_a_memory_that_is_not_finite_skips_the_step_and_keeps_nothing(loss):
    model, memory = network(), Reservoir(10)
    memory.add(THEN[0] * float("nan"), THEN[1])
    optimizer = optimizer_of(model, Rehearsal(memory, loss=loss))
    start = flat(model.parameters())
    with pytest.warns(UserWarning, match="is not finite: the step is skipped"):
        optimizer.step(losses_of(model), *NOW)
    assert torch.equal(flat(model.parameters()), start)
    assert len(memory) == 4 and optimizer.skipped == 1
    optimizer.on_nonfinite = "raise"
    with pytest.raises(FloatingPointError, match="is not finite"):
        optimizer.step(losses_of(model), *NOW)


@pytest.mark.parametrize("loss", [0.0, 1.0])
def test_a_loss_of_the_memory_that_is_not_finite_is_enough(loss):
    model, memory = network(), Reservoir(10)
    memory.add(THEN[0] + 1000, THEN[1])

    def losses(x, y):  # infinite far out, where its gradients are finite all the same
        return losses_of(model)(x, y) + torch.where(x[:, 0] > 100, torch.inf, 0.0)

    optimizer = optimizer_of(model, Rehearsal(memory, loss=loss))
    with pytest.warns(UserWarning, match="what has joined the loss is not finite"):
        optimizer.step(losses, *NOW)
    assert optimizer.skipped == 1


def test_a_batch_that_is_not_finite_is_not_taken_in():
    model, part = network(), Rehearsal(Reservoir(10))
    with pytest.warns(UserWarning, match="the loss is not finite"):
        optimizer_of(model, part).step(losses_of(model), NOW[0] * float("inf"), NOW[1])
    assert len(part.memory) == 0


class Heads(nn.Module):
    """One body, a head for each task, the task in the sign of the label."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(4, 5).double()
        self.heads = nn.ModuleList([nn.Linear(5, 3).double() for _ in range(3)])

    def losses(self, x, y):
        head = self.heads[int(y[0]) // 3]
        return F.cross_entropy(head(torch.tanh(self.body(x))), y % 3, reduction="none")


def test_what_only_one_of_both_batches_reaches_moves_and_the_rest_stays():
    model, memory = Heads(), Reservoir(4)
    memory.add(THEN[0], THEN[1] + 3)
    before = copy.deepcopy(model.state_dict())
    optimizer_of(model, Rehearsal(memory), weight_decay=0.1).step(model.losses, *NOW)
    after = model.state_dict()
    changed = {n.split(".weight")[0] for n in after if not torch.equal(before[n], after[n])}
    assert {"body", "heads.0", "heads.1"} <= changed
    assert not any(n.startswith("heads.2") for n in changed)


def test_groups_that_maximize_or_take_no_part_are_left_so():
    model = network()
    (g, _), (gm, _) = (both_gradients(model, *x) for x in (NOW, THEN))
    groups = [
        {"params": model[0].parameters(), "structure": False},
        {"params": model[2].parameters()},
    ]
    start, inside = flat(model.parameters()), sum(p.numel() for p in model[0].parameters())
    optimizer = optimizer_of(groups, Rehearsal(filled()))
    optimizer.step(losses_of(model), *NOW)
    moved = (start - flat(model.parameters())) / 0.1
    assert torch.allclose(moved[:inside], (g + gm)[:inside], rtol=1e-9, atol=1e-13)
    d = (moved - g - gm)[inside:]
    assert d.norm() > 1e-3
    assert abs(torch.dot(d, gm[inside:])) <= 1e-11 * d.norm() * gm.norm()
    up, down = network(), network()
    optimizer_of(up, Rehearsal(filled()), maximize=True).step(
        lambda x, y: -losses_of(up)(x, y), *NOW
    )
    optimizer_of(down, Rehearsal(filled())).step(losses_of(down), *NOW)
    assert torch.allclose(flat(up.parameters()), flat(down.parameters()), rtol=1e-12)


def test_it_works_with_an_estimator_that_has_no_single_gradients():
    model = network()
    optimizer = F3EO(
        model, SGD, lr=0.1, estimator=MiniBatch(), past=Rehearsal(filled(), 4), **WHOLE
    )
    optimizer.step(lambda x, y: losses_of(model)(x, y).mean(), *NOW)
    assert optimizer.steps == 1


def test_batchnorm_takes_the_statistics_of_each_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    twin = copy.deepcopy(model)
    part = Rehearsal(filled())
    optimizer_of(model, part, strength=Fixed(0.0)).step(losses_of(model), *NOW)
    with torch.no_grad():
        twin(NOW[0])
        twin(THEN[0])
    assert torch.allclose(model[1].running_mean, twin[1].running_mean)


def test_the_defaults_train():
    model, part = network().float(), Rehearsal(Reservoir(20))
    optimizer = F3EO(model, SGD, lr=0.1, past=[part], fraction=0.5)
    for seed in range(12):
        x, y = batch(8, seed)
        optimizer.step(losses_of(model), x.float(), y)
    assert optimizer.steps == 12 and part.last_trace is not None


def test_weighted_losses_of_a_memory_are_weighted_there():
    model = network()
    w = torch.rand(4).double()
    memory = Reservoir(4)
    memory.add(*THEN, w)
    optimizer = optimizer_of(model, Rehearsal(memory, decouple=False), strength=Fixed(0.0))
    start = flat(model.parameters())
    optimizer.step(
        lambda x, y, w: Weighted(losses_of(model)(x, y), w), *NOW, torch.ones(6).double()
    )
    truth = network()
    own = losses_of(truth)(*NOW).mean() + (w * losses_of(truth)(*THEN)).sum() / w.sum()
    g = flat(torch.autograd.grad(own, list(truth.parameters())))
    assert torch.allclose((start - flat(model.parameters())) / 0.1, g, rtol=1e-9, atol=1e-12)
