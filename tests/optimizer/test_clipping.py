"""Between accumulate() and step() the gradient lies in .grad, and step() takes it as it then is."""

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import SGD, Adam

from dense import relative
from f3eo import F3EO, Coupled, Decoupled, DoubleBackward, Fixed, PerSample, Ratio
from optimizer.helpers import batches, flat, gradient, losses, network, weights

EXACT = PerSample(DoubleBackward())


def made(base=SGD, seed=0, **options):
    model = network(seed=seed).model
    settings = {"estimator": EXACT, "strength": Fixed(1.0), "rule": Coupled(), "fraction": 1}
    return model, F3EO(model, base, **{"lr": 1.0} | settings | options)


def gathered(model, optimizer, batch, sizes=(4, 2)):
    for part in zip(*(t.split(sizes) for t in batch), strict=True):
        optimizer.accumulate(losses(model), *part)


def moved(change, batch, **options):
    """How far SGD moves at rate 1: the update, after something was done to .grad."""
    model, optimizer = made(**options)
    before = weights(model)
    gathered(model, optimizer, batch)
    change(model)
    optimizer.step()
    return before - weights(model)


def grads(model):
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("sizes", [(6,), (4, 2), (1, 2, 3)])
def test_grad_holds_the_gradient_of_all_micro_batches_in_the_sign_of_the_loss(sizes, maximize):
    model, optimizer = made(maximize=maximize)
    batch = batches(1)[0]
    gathered(model, optimizer, batch, sizes)
    assert relative(flat(grads(model)), flat(gradient(model, batch))) < 1e-12


@pytest.mark.parametrize("rule", [Coupled(), Decoupled()])
@pytest.mark.parametrize("factor", [0.25, 1e-6, 3.0, -0.5])
def test_a_common_factor_is_one_on_all_of_the_update(factor, rule):
    batch = batches(1)[0]
    whole = moved(lambda m: None, batch, rule=rule)

    def scale(model):
        for p in model.parameters():
            p.grad *= factor

    def scale_behind_autograd(model):
        for p in model.parameters():
            p.grad.data.mul_(factor)

    def replace(model):
        for p in model.parameters():
            p.grad = factor * p.grad

    for change in (scale, scale_behind_autograd, replace):
        assert relative(moved(change, batch, rule=rule), factor * whole) < 1e-9


@pytest.mark.parametrize("base", [SGD, Adam])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("norm", [0.05, 1e6])
def test_clip_grad_norm_is_max_norm(norm, every, base):
    found = []
    for own in (True, False):
        model, optimizer = made(base, lr=0.05, every=every, max_norm=norm if own else None)
        for batch in batches(5):
            gathered(model, optimizer, batch)
            if not own:
                total = clip_grad_norm_(model.parameters(), norm)
                assert total > 0.05
            optimizer.step()
        found.append(weights(model))
    assert relative(*found) < 1e-6  # both add 1e-6 to the norm


def test_single_precision_and_bfloat16_see_the_factor_too():
    batch = batches(1)[0]
    for dtype in (torch.float32, torch.bfloat16):
        model = network().model.to(dtype)
        optimizer = F3EO(model, SGD, lr=0.1, estimator=EXACT, fraction=1)
        optimizer.accumulate(losses(model), batch[0].to(dtype), batch[1])
        clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()  # no warning
        assert float(flat(grads(model)).norm()) < 0.1


def test_max_norm_counts_from_what_grad_then_is():
    model, optimizer = made(max_norm=0.1)
    gathered(model, optimizer, batches(1)[0])
    clip_grad_norm_(model.parameters(), 0.2)
    g = flat(grads(model)).norm()
    before, (plain, other) = weights(model), made(max_norm=None)
    optimizer.step()
    start = weights(plain)
    gathered(plain, other, batches(1)[0])
    whole = float(flat(grads(plain)).norm())
    other.step()
    assert g == pytest.approx(0.2, rel=1e-5)
    assert relative(before - weights(model), (start - weights(plain)) * 0.1 / whole) < 1e-4


NO_FACTOR = {
    "values": lambda m: clip_grad_value_(m.parameters(), 0.01),
    "noise": lambda m: [p.grad.add_(0.1 * torch.ones_like(p)) for p in m.parameters()],
    "one tensor": lambda m: m[0].weight.grad.mul_(0.5),
    "one element": lambda m: m[0].weight.grad[0, 0].mul_(0.9),
    "permuted": lambda m: m[0].weight.grad.neg_(),
}


@pytest.mark.parametrize("name", NO_FACTOR)
def test_what_is_no_factor_is_the_users_and_scales_h_as_the_norm_with_one_warning(name):
    batch = batches(1)[0]
    h = moved(lambda m: None, batch)
    model, optimizer = made()
    gathered(model, optimizer, batch)
    old = flat(grads(model)).clone()
    h = h - old
    NO_FACTOR[name](model)
    new = flat(grads(model)).clone()
    before = weights(model)
    with pytest.warns(UserWarning, match="no common factor.*max_norm") as caught:
        optimizer.step()
    assert len(caught) == 1 and caught[0].filename == __file__
    assert relative(before - weights(model), new + h * new.norm() / old.norm()) < 1e-12
    gathered(model, optimizer, batch)
    NO_FACTOR[name](model)
    optimizer.step()  # said once


def test_clipping_every_micro_batch_counts_as_well():
    model, optimizer = made()
    first, second = batches(2)
    optimizer.accumulate(losses(model), *first)
    for p in model.parameters():
        p.grad *= 0.5
    optimizer.accumulate(losses(model), *second)
    expected = 0.25 * flat(gradient(model, first)) + 0.5 * flat(gradient(model, second))
    assert relative(flat(grads(model)), expected) < 1e-12
    before = weights(model)
    optimizer.step()
    halves = [moved(lambda m: None, batch) for batch in (first, second)]
    assert relative(before - weights(model), 0.25 * halves[0] + 0.5 * halves[1]) < 1e-12


def test_a_grad_that_was_taken_away_leaves_its_parameter_alone():
    model, optimizer = made()
    gathered(model, optimizer, batches(1)[0])
    model[0].weight.grad = None
    before = weights(model), model[0].weight.clone()
    optimizer.step()
    whole = moved(lambda m: None, batches(1)[0])
    count = model[0].weight.numel()
    assert torch.equal(before[1], model[0].weight)
    assert relative((before[0] - weights(model))[count:], whole[count:]) < 1e-12


@pytest.mark.parametrize("again", [False, True])
def test_taking_every_grad_away_drops_what_was_accumulated(again):
    model, optimizer = made()
    first, second = batches(2)
    optimizer.accumulate(losses(model), *first)
    model.zero_grad()
    if again:
        optimizer.accumulate(losses(model), *second)
        assert relative(flat(grads(model)), flat(gradient(model, second))) < 1e-12
    else:
        with pytest.raises(RuntimeError, match=r"needs accumulate\(closure, \*batch\)"):
            optimizer.step()


def test_a_parameter_that_the_loss_does_not_use_has_no_grad_and_may_be_given_one():
    model, optimizer = made()
    model.register_parameter("spare", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    optimizer.add_param_group({"params": model.spare})
    model.spare.grad = torch.ones(2, dtype=torch.float64)  # of another time
    gathered(model, optimizer, batches(1)[0])
    assert model.spare.grad is None
    model.spare.grad = torch.ones(2, dtype=torch.float64)  # of now
    with pytest.warns(UserWarning, match="no common factor"):
        optimizer.step()
    assert torch.equal(model.spare, torch.zeros(2, dtype=torch.float64))


def test_a_frozen_layer_does_not_count_in_the_norm():
    model, optimizer = made()
    losses(model)(*batches(1)[0]).sum().backward()
    model[0].requires_grad_(False)
    gathered(model, optimizer, batches(1)[0])
    own = flat(p.grad for p in model[2:].parameters()).norm()
    assert clip_grad_norm_(model.parameters(), 1e9) == pytest.approx(float(own))


def test_clipping_a_gradient_that_is_not_finite_skips_the_step():
    model, optimizer = made()
    before = weights(model)
    x, y = batches(1)[0]
    optimizer.accumulate(lambda x, y: losses(model)(x, y) * torch.inf, x, y)
    clip_grad_norm_(model.parameters(), 1.0)
    with pytest.warns(UserWarning, match="not finite.*skipped"):
        optimizer.step()
    gathered(model, optimizer, (x, y))
    model[0].weight.grad[0, 0] = torch.nan
    optimizer.step()
    assert optimizer.skipped == 2 and torch.equal(before, weights(model))


class Sum(nn.Module):
    """Two biases that autograd hands the same gradient, and a weight that gets an expanded one."""

    def __init__(self):
        super().__init__()
        zeros = torch.zeros(3, dtype=torch.float64)
        self.a, self.b = nn.Parameter(zeros.clone()), nn.Parameter(zeros.clone())

    def forward(self, x):
        return x @ torch.ones(5, 3, dtype=x.dtype) + self.a + self.b


def test_grads_share_no_memory_with_each_other_or_the_structure_gradient():
    model = Sum()
    optimizer = F3EO(model, SGD, lr=1.0, strength=Ratio(0), fraction=1)
    x, y = batches(1)[0]
    optimizer.accumulate(lambda x, y: model(x).sum(1), x, y)
    model.a.grad.mul_(2)
    assert relative(model.b.grad, torch.ones(3)) < 1e-12
    model.b.grad.mul_(3)
    assert relative(model.a.grad, torch.full((3,), 2.0)) < 1e-12


def test_a_step_with_a_closure_looks_at_no_gradient_twice(monkeypatch):
    from f3eo.optimizer import accumulated

    monkeypatch.setattr(accumulated, "_marks", lambda *_: pytest.fail("marks are for accumulate"))
    model, optimizer = made()
    optimizer.step(losses(model), *batches(1)[0])


def test_accumulate_keeps_no_copy_of_the_gradient():
    model, optimizer = made()
    gathered(model, optimizer, batches(1)[0])
    kept = optimizer._accumulated.measured.gradients.gradient
    assert all(g is p.grad for g, p in zip(kept, model.parameters(), strict=True))


@pytest.mark.parametrize("every", [1, 2])
def test_nothing_done_is_nothing_changed_bit_for_bit(every):
    """One micro-batch is the batch, whether it was looked at or not."""
    found = []
    for how in ("step", "accumulate", "clip"):
        model, optimizer = made(lr=0.1, every=every)
        for batch in batches(4):
            if how == "step":
                optimizer.step(losses(model), *batch)
                continue
            gathered(model, optimizer, batch, (6,))
            if how == "clip":
                clip_grad_norm_(model.parameters(), 1e9)
            optimizer.step()
        found.append(weights(model))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
