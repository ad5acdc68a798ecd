"""What plain loops have around the step: averages of weights, hooks, a divided loss."""

import pytest
import torch
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dense import relative
from f3eo import F3EO, Compiled, Fixed, MiniBatch, Sign
from integrations.small import batch, losses_of, network, vector


def test_an_average_of_weights_is_that_of_the_steps():
    model = network()
    optimizer = F3EO(model, SGD, lr=0.5)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    expected = None
    for _ in range(6):
        optimizer.step(losses_of(model), *batch())
        average.update_parameters(model)
        now = vector(model)
        expected = now if expected is None else 0.9 * expected + 0.1 * now
    assert relative(vector(average.module), expected) < 1e-12
    assert relative(vector(model), expected) > 1e-3


KINDS = {
    "register_hook": lambda p, called: p.register_hook(lambda g: called.append(g.clone())),
    "register_post_accumulate_grad_hook": lambda p, called: p.register_post_accumulate_grad_hook(
        lambda p: called.append(p.grad.clone())
    ),
}
ESTIMATORS = {
    "default": lambda: {},
    "Sign": lambda: {"estimator": Sign()},
    "MiniBatch": lambda: {"estimator": MiniBatch()},
    "Compiled": lambda: {"estimator": Compiled(backend=None)},
}


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", KINDS)
def test_hooks_on_gradients_are_refused_at_the_step_after_they_come(kind, name, steps):
    """Between measurements, too: step 1 and 3 of the default measure no h."""
    model = network()
    optimizer = F3EO(model, SGD, lr=0.1, **ESTIMATORS[name]())
    for _ in range(steps):
        optimizer.step(losses_of(model), *batch())
    KINDS[kind](model[0].weight, [])
    before = vector(model)
    with pytest.raises(ValueError, match=rf"0\.weight has a hook on its gradient \({kind}\)"):
        optimizer.step(losses_of(model), *batch())
    with pytest.raises(ValueError, match=r"0\.weight has a hook"):
        optimizer.accumulate(losses_of(model), *batch())
    assert torch.equal(vector(model), before)


def test_without_a_strength_hooks_on_gradients_are_called_or_refused():
    model, called = network(), []
    optimizer = F3EO(model, SGD, lr=0.1, strength=Fixed(0.0))
    handle = KINDS["register_hook"](model[0].weight, called)
    optimizer.step(losses_of(model), *batch())
    assert len(called) == 1 and torch.equal(called[0], model[0].weight.grad)
    handle.remove()
    KINDS["register_post_accumulate_grad_hook"](model[0].weight, called)
    with pytest.raises(ValueError, match="register_post_accumulate_grad_hook"):
        optimizer.step(losses_of(model), *batch())


def test_hooks_of_the_base_see_the_gradient_of_a_step():
    model, seen = network(), []
    optimizer = F3EO(model, SGD, lr=0.1)
    optimizer.base.register_step_pre_hook(
        lambda base, args, kwargs: seen.append(model[0].weight.grad.norm())
    )
    optimizer.step(losses_of(model), *batch())
    assert len(seen) == 1 and seen[0] > 0


DIVIDED = {
    "/": lambda loss, count: loss / count,
    "*": lambda loss, count: loss * (1 / count),
    "of tokens": lambda loss, count: (loss.unsqueeze(1).expand(-1, 3) / count).double(),
}


@pytest.mark.parametrize("name", DIVIDED)
def test_a_loss_divided_by_the_number_of_micro_batches_is_said_once(name):
    model, (x, y) = network(), batch()
    optimizer = F3EO(model, SGD, lr=0.1)

    def losses(x, y):
        return DIVIDED[name](losses_of(model)(x, y), 4)

    def accumulated():
        for part in range(4):
            optimizer.accumulate(losses, x[part::4], y[part::4])

    accumulated()
    with pytest.warns(UserWarning, match="divides its losses by 4.*4 times too small"):
        optimizer.step()
    accumulated()
    optimizer.step()


@pytest.mark.parametrize("count", [1, 2, 8])
def test_other_divisors_are_left_alone(count):
    model, (x, y) = network(), batch()
    optimizer = F3EO(model, SGD, lr=0.1)
    for part in range(count):
        optimizer.accumulate(
            lambda x, y: losses_of(model)(x, y) / 4, x[part::count], y[part::count]
        )
    optimizer.step()


def test_micro_batches_are_averaged_over_samples_without_a_division():
    whole, parted, (x, y) = network(), network(), batch(10)
    F3EO(whole, SGD, lr=0.1, fraction=1).step(losses_of(whole), x, y)
    optimizer = F3EO(parted, SGD, lr=0.1, fraction=1)
    for part in (slice(4), slice(4, 8), slice(8, 10)):  # the last one is smaller
        optimizer.accumulate(losses_of(parted), x[part], y[part])
    optimizer.step()
    assert relative(vector(parted), vector(whole)) < 1e-9
