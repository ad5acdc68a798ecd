import torch

from bench.continual.learners.helpers import closure_of, flat, small_model, stage_batches
from f3eo.bench.continual.learners import PEERS
from f3eo.continual import Elastic, FromSteps, Rehearsal

RATE, PULL = 0.1, 2.0


def gradient(model, x, y):
    loss = closure_of(model)(x, y).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def built(model, name, **options):
    return PEERS[name].build(model, PEERS[name].options({"lr": RATE, "momentum": 0.0}, options), 0)


def test_the_memory_joins_with_a_loss_and_a_structure_of_its_own():
    model = small_model()
    options = {"value": 0.0, "memory_loss": 0.5, "samples": 8, "memory_structure": 0.3}
    learner = built(model, "f3eo_memory", **options)
    past = learner.optimizer.past
    assert isinstance(past, Rehearsal) and past.decouple
    assert (past.samples, past.loss, past.structure, past.memory.size) == (8, 0.5, 0.3, 200)
    (a, b), (c, d) = stage_batches(0)[:2]
    learner.step(closure_of(model), a, b)
    before = flat(model)
    expected = before - RATE * (gradient(model, c, d) + 0.5 * gradient(model, a, b))
    learner.step(closure_of(model), c, d)
    torch.testing.assert_close(flat(model), expected)


def test_a_stage_ends_with_the_importance_of_its_measured_steps():
    """Ω is the mean of squared single gradients along the steps; nothing is measured at the end."""
    model, calls = small_model(), 0
    learner = built(model, "f3eo_elastic", penalty=PULL, every=1, fraction=1.0)
    past = learner.optimizer.past
    assert isinstance(past, Elastic) and isinstance(past.importance, FromSteps)
    squares = []
    for x, y in stage_batches(0, steps=3):
        single = zip(x.split(1), y.split(1), strict=True)
        squares.append(torch.stack([gradient(model, *s).square() for s in single]).mean(0))
        learner.step(closure_of(model), x, y)

    def counted(x, y):
        nonlocal calls
        calls += 1
        return closure_of(model)(x, y)

    learner.end(counted, stage_batches(0, steps=3))
    assert not calls
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1
        penalty = past.penalty(model.parameters())
    omega = torch.stack(squares).mean(0)
    torch.testing.assert_close(penalty, 0.5 * PULL * (omega * 0.1**2).sum())
