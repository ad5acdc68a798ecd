"""Rehearsal against gradients of both batches by hand, and where it joins a step."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, AdamW

from cases import WHOLE
from continual.truths import batch, both_gradients, exact, flat, losses_of, network
from f3eo import F3EO, Coupled, Decoupled, Fixed, MiniBatch, PerSample, Weighted
from f3eo.continual import Rehearsal, Reservoir

NOW, THEN = batch(6, 1), batch(4, 2)


def filled(size: int = 4) -> Reservoir:
    memory = Reservoir(size)
    memory.add(*THEN)
    return memory


def recorded(optimizer: F3EO, *steps):
    """The records of steps with these (closure, batch)."""
    records = []
    optimizer.observe(lambda r: records.append(copy.deepcopy(r)))
    for closure, x, y in steps:
        optimizer.step(closure, x, y)
    return records


def optimizer_of(model, part, base=SGD, **options) -> F3EO:
    own = {"lr": 0.1, "estimator": exact(), "strength": Fixed(0.5)} | WHOLE
    return F3EO(model, base, past=part, **own | options)


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
