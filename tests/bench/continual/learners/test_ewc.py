import pytest
import torch
from torch import nn

from bench.continual.learners.helpers import closure_of, flat, small_model, stage_batches
from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.learners.batch_squared import BatchSquared
from f3eo.bench.continual.learners.regularised import first
from f3eo.continual import Exact

RATE, STRENGTH, STIFF, DECAY, SAMPLES = 0.1, 3.0, 3000.0, 0.7, 16


def gradient(model, x, y):
    loss = closure_of(model)(x, y).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def mean_of_squares(model, batches, size):
    """The mean of squared gradients of parts of this size, of the first 16 samples."""
    x, y = (torch.cat(parts)[:SAMPLES] for parts in zip(*batches, strict=True))
    parts = zip(x.split(size), y.split(size), strict=True)
    return torch.stack([gradient(model, *part).square() for part in parts]).mean(0)


@pytest.mark.parametrize("strength", [STRENGTH, STIFF])
@pytest.mark.parametrize(
    "name, size, decay",
    [("ewc", 1, None), ("ewc_batch", 8, None), ("online_ewc", 1, DECAY), ("stable_ewc", 1, None)],
)
def test_a_step_adds_the_gradient_of_the_penalty_by_its_importance(name, size, decay, strength):
    """g + λ Σ_k F_k (θ − θ*_k), and g + λ (γ F_1 + F_2)(θ − θ*_2) of online EWC.

    Where λ Σ_k F_k is above 1/lr of the stage in a parameter, that stands in its place.
    """
    model = small_model()
    options = {"lr": RATE, "momentum": 0.0, "strength": strength, "samples": SAMPLES}
    options |= {} if decay is None else {"decay": decay}
    options = PEERS[name].options(options)
    learner = PEERS[name].build(model, options, 0)
    closure, anchors, fishers = closure_of(model), [], []
    for stage in range(2):
        batches = stage_batches(stage, steps=4)
        for x, y in batches:
            learner.step(closure, x, y)
        anchors.append(flat(model))
        fishers.append(mean_of_squares(model, batches, size))
        learner.end(closure, batches)
    learner.begin(2, 2)
    rate = RATE * options.get("gamma", 1.0) ** 2  # falls within the stable recipe
    learner.step(closure, *stage_batches(2)[0])  # at θ*_2, away from it
    before, (x, y) = flat(model), stage_batches(2)[1]
    moves = [before - anchor for anchor in anchors]
    if decay is None:
        pull = fishers[0] * moves[0] + fishers[1] * moves[1]
        curvature = strength * (fishers[0] + fishers[1])
    else:
        pull = (decay * fishers[0] + fishers[1]) * moves[1]
        curvature = strength * (decay * fishers[0] + fishers[1])
    pull = strength * pull * (1 / rate / curvature).clamp(max=1)
    stiff = (curvature > 1 / rate).double().mean()
    assert 0.1 < stiff < 0.9 if strength == STIFF else not stiff
    own, expected = gradient(model, x, y), closure(x, y).mean().detach()
    assert (rate * pull).norm() > 1e-4  # else nothing is tested
    loss = learner.step(closure, x, y)
    torch.testing.assert_close(flat(model), before - rate * (own + pull))
    torch.testing.assert_close(loss, expected)  # without the penalty


def test_before_the_first_stage_ends_it_is_sgd():
    model, other = small_model(), small_model()
    options = PEERS["ewc"].options({"momentum": 0.5})
    learner = PEERS["ewc"].build(model, options, 0)
    sgd = PEERS["sgd"].build(other, PEERS["sgd"].options({"momentum": 0.5}), 0)
    for x, y in stage_batches(0):
        learner.step(closure_of(model), x, y)
        sgd.step(closure_of(other), x, y)
    assert torch.equal(flat(model), flat(other))


def test_batch_squared_is_the_exact_diagonal_over_b_and_the_squared_mean():
    """E (1/B Σ g_i)² = E g²/B + (1 − 1/B) (E g)², of gradients that are independent noise."""
    size, number = 5, 4000
    draw = torch.Generator().manual_seed(0)
    mean = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False).double()  # ℓ_i = ⟨x_i, θ⟩, so that x_i is its gradient
    x = mean + torch.randn(number, size, 3, generator=draw, dtype=torch.float64)
    batches = [(part, torch.zeros(size)) for part in x]

    def closure(x, y):
        return model(x)[:, 0]

    exact, squared = (
        importance.measure(model, closure, batches)[model.weight].flatten()
        for importance in (Exact(), BatchSquared())
    )
    torch.testing.assert_close(exact, x.square().mean((0, 1)))
    torch.testing.assert_close(squared, x.mean(1).square().mean(0))
    expected = exact / size + (1 - 1 / size) * mean.square()
    error = x.mean(1).square().std(0) / number**0.5
    assert ((squared - expected).abs() < 4 * error).all()
    assert (squared / exact)[0] == pytest.approx(1 / size, abs=0.01)


def test_the_first_samples_end_in_the_middle_of_a_batch():
    batches = stage_batches(0, steps=4)
    assert [len(x) for x, _ in first(batches, 20)] == [8, 8, 4]
    assert [len(y) for _, y in first(batches, 16)] == [8, 8]
    assert [len(x) for x, _ in first(batches, 1000)] == [8] * 4
    assert list(first(batches, 0)) == []


def test_batch_squared_without_data_is_refused():
    model = small_model()
    for closure, data in ((None, [()]), (closure_of(model), []), (closure_of(model), None)):
        with pytest.raises(ValueError, match="received 0 batches"):
            BatchSquared().measure(model, closure, data)
