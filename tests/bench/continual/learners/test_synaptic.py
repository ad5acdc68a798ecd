import torch

from bench.continual.learners.helpers import closure_of, flat, small_model, stage_batches
from f3eo.bench.continual.learners import PEERS

RATE, STRENGTH, DAMPING = 0.1, 5.0, 0.05


def test_the_importance_is_the_path_integral_of_the_loss_over_the_move():
    """ω += −g Δθ with g of the loss alone; Ω += max(ω, 0)/(Δ² + ξ) and θ* ← θ as a stage ends."""
    model = small_model()
    options = {"lr": RATE, "momentum": 0.5, "strength": STRENGTH, "damping": DAMPING}
    learner = PEERS["si"].build(model, PEERS["si"].options(options), 0)
    closure, theta = closure_of(model), flat(model)
    other = small_model()
    velocity = importance = anchor = torch.zeros_like(theta)
    for stage in range(3):
        batches, start, omega = stage_batches(stage, steps=5), theta, torch.zeros_like(theta)
        for x, y in batches:
            torch.nn.utils.vector_to_parameters(theta, other.parameters())
            loss = closure_of(other)(x, y).mean()
            own = torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, list(other.parameters()))]
            )
            whole = own + STRENGTH * importance * (theta - anchor)
            velocity = 0.5 * velocity + whole
            omega = omega + own * RATE * velocity
            theta = theta - RATE * velocity
            learner.step(closure, x, y)
            torch.testing.assert_close(flat(model), theta)
        learner.end(closure, batches)
        importance = importance + omega.clamp(min=0) / ((theta - start).square() + DAMPING)
        anchor = theta
    assert (STRENGTH * importance).max() > 0.1  # else nothing is tested
