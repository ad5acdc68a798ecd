"""What docs/start.md says of the loop, of accumulation, and of what to look at."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD

from dense import relative
from docs.pages import block, names, prose, run
from f3eo import F3EO, Cap, Fitted, Fixed, Ratio, fisher_trace

WHOLE = {"fraction": 1, "every": 1}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_loop_runs_to_its_end_and_returns_the_mean_loss():
    space = run(block("start.md", containing="TensorDataset"))
    assert space["optimizer"].steps == 20 * 4 and space["optimizer"].skipped == 0
    assert space["loss"].ndim == 0 and not space["loss"].requires_grad
    assert space["optimizer"].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_losses_with_more_dimensions_are_averaged():
    space = names(dtype=torch.float64)
    model, x = space["model"], space["x"]
    per_token = lambda x: model(x).square()  # noqa: E731
    optimizer = F3EO(model, SGD, lr=0.1, strength=Cap(0.04))
    expected = model(x).square().mean(1).mean()
    assert torch.allclose(optimizer.step(per_token, x), expected)


@pytest.mark.parametrize("strength", [Fitted(0), Cap(0), Fixed(0), Ratio(0)], ids=repr)
def test_a_strength_of_zero_is_the_base_bit_for_bit(strength):
    space = names()
    model, x, y = (space[name] for name in ("model", "x", "y"))
    alone = copy.deepcopy(model)
    ours, base = F3EO(model, SGD, lr=0.1, strength=strength), SGD(alone.parameters(), lr=0.1)
    for _ in range(3):
        ours.step(space["closure"], x, y)
        base.zero_grad()
        F.cross_entropy(alone(x), y, reduction="none").mean().backward()
        base.step()
    assert torch.equal(weights(model), weights(alone))


def one_step(**options):
    space = names(dtype=torch.float64)
    return space, F3EO(space["model"], SGD, lr=0.1, strength=Fixed(0.1), **options)


def test_micro_batches_add_up_and_grad_is_the_loss_gradient_until_step():
    space, optimizer = one_step(**WHOLE)
    other, whole = one_step(**WHOLE)
    for x, y in space["micro_batches"]:
        optimizer.accumulate(space["closure"], x, y)
    loss = other["closure"](other["x"], other["y"]).mean()
    expected = torch.autograd.grad(loss, list(other["model"].parameters()))
    for p, g in zip(space["model"].parameters(), expected, strict=True):
        assert torch.allclose(p.grad, g)
    optimizer.step()
    whole.step(other["closure"], other["x"], other["y"])
    # The width of the differences follows the batch: equal to the error of h.
    assert torch.allclose(weights(space["model"]), weights(other["model"]), atol=1e-6)


def test_clipping_by_hand_and_by_max_norm_scale_the_structure_term_alike():
    (space, by_hand), (other, option) = one_step(**WHOLE), one_step(**WHOLE, max_norm=0.01)
    by_hand.accumulate(space["closure"], space["x"], space["y"])
    torch.nn.utils.clip_grad_norm_(space["model"].parameters(), 0.01)
    by_hand.step()
    option.step(other["closure"], other["x"], other["y"])
    assert torch.allclose(weights(space["model"]), weights(other["model"]), atol=1e-8)
    start = weights(names(dtype=torch.float64)["model"])
    assert (weights(other["model"]) - start).norm() < 0.1 * 0.01 * 2


def test_weights_of_tokens_share_their_denominator():
    space = run(block("start.md", containing="kept_tokens"), names())
    x, y, model = space["x"], space["y"], space["model"]
    kept = (y != 0).float()
    weighted = space["kept_tokens"](x, y, kept)
    likelihood = space["per_token"](x, y)
    assert torch.equal(likelihood.weights(), kept)
    mean = F.cross_entropy(model(x)[y != 0], y[y != 0])
    assert torch.allclose((weighted.losses * kept).sum() / kept.sum(), mean)
    assert torch.allclose(F3EO(model, SGD, lr=0.0).step(space["kept_tokens"], x, y, kept), mean)


def test_what_to_look_at_is_there(capsys):
    run(block("start.md", containing="print(optimizer.trace)"))
    shown = capsys.readouterr().out
    assert (
        "F3EO(SGD(lr=0.1), PerSample(metric=ByRow(), hold_residuals=True), Decoupled(), "
        "Sensitivity(), fraction=None, every=5)" in shown
    )
    assert "\n1 0\n" in shown and "\n1.05" in shown


@pytest.mark.parametrize("seed", range(3))
def test_at_the_same_loss_a_larger_strength_gives_a_smaller_trace(seed):
    def trained(strength):
        torch.manual_seed(seed)
        layers = torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3)
        model, x, y = torch.nn.Sequential(*layers), torch.randn(64, 20), torch.randint(3, (64,))

        def losses(x, y):
            return F.cross_entropy(model(x), y, reduction="none")

        optimizer = F3EO(model, SGD, lr=0.1, momentum=0.9, strength=strength)
        while optimizer.step(losses, x, y) > 0.3:
            assert optimizer.steps < 100
        return fisher_trace(model, losses, x, y)[1]

    assert "at the same loss, before the training set is fitted" in prose("start.md")
    assert trained(Cap(2.0)) < trained(Cap(0.5)) < trained(Cap(0.0))


def test_fisher_trace_gives_losses_and_trace_both_differentiable():
    space = run(block("start.md", containing="values, trace"))
    assert space["values"].shape == (6,) and space["trace"].ndim == 0
    assert space["values"].requires_grad and space["trace"].requires_grad
    values, trace = space["numbers"]
    assert relative(values, space["values"]) < 1e-5 and relative(trace, space["trace"]) < 1e-5
    assert not values.requires_grad and not trace.requires_grad


def test_a_state_dict_resumes_bit_for_bit():
    space, optimizer = one_step()
    model, closure, x, y = (space[name] for name in ("model", "closure", "x", "y"))
    for _ in range(3):
        optimizer.step(closure, x, y)
    saved, start = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    ends = []
    for _ in range(2):
        model.load_state_dict(start)
        resumed = F3EO(model, SGD, lr=0.1, strength=Fixed(0.1))
        resumed.load_state_dict(saved)
        assert resumed.steps == 3 and resumed.trace == optimizer.trace
        resumed.step(closure, x, y)  # the 4th: the direction of the 1st is used
        ends.append(weights(model))
    model.load_state_dict(start)
    optimizer.step(closure, x, y)
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], weights(model))
