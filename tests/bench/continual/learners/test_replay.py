import torch

from bench.continual.learners.helpers import closure_of, flat, small_model, stage_batches
from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.learners.replay import Replay
from f3eo.bench.methods import METHODS, Stepper
from f3eo.continual import Reservoir


class Seen(Stepper):
    """Keeps the batches that it is given."""

    optimizers = ()

    def __init__(self):
        self.batches = []

    def step(self, closure, x, y):
        self.batches.append((x, y))
        return torch.zeros(())


def rows(x):
    return {tuple(row) for row in x.tolist()}


def test_a_step_is_on_the_batch_and_on_as_many_samples_of_earlier_batches():
    stepper = Seen()
    memory = Reservoir(30, generator=torch.Generator().manual_seed(0))
    learner = Replay(stepper, memory, samples=8)
    batches = stage_batches(0, steps=6)
    labels = {
        tuple(row): int(label) for x, y in batches for row, label in zip(x.tolist(), y, strict=True)
    }
    for x, y in batches:
        learner.step(None, x, y)
    assert torch.equal(stepper.batches[0][0], batches[0][0])  # nothing is kept before the first
    for number in range(1, len(batches)):
        (x, y), (current, _) = stepper.batches[number], batches[number]
        assert len(x) == len(y) == 16 and len(rows(x)) == 16
        assert torch.equal(x[:8], current)
        assert rows(x[8:]) <= set.union(*(rows(earlier) for earlier, _ in batches[:number]))
        assert [labels[tuple(row)] for row in x.tolist()] == y.tolist()
    assert len(memory) == 30


def test_over_sgd_it_is_one_step_on_the_mean_of_both():
    (a, b), (c, d) = stage_batches(0)[:2]
    options = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    model = small_model()
    learner = PEERS["replay"].build(model, PEERS["replay"].options(options, {"samples": 8}), 0)
    learner.step(closure_of(model), a, b)
    loss = learner.step(closure_of(model), c, d)
    other = small_model()
    sgd = METHODS["sgd"].build(other, options, 0)
    sgd.step(closure_of(other), a, b)
    both = closure_of(other)(torch.cat([c, a]), torch.cat([d, b])).mean()
    expected = flat(other) - 0.1 * torch.cat(
        [g.flatten() for g in torch.autograd.grad(both, list(other.parameters()))]
    )
    torch.testing.assert_close(flat(model), expected)  # the memory holds all of the first batch
    torch.testing.assert_close(loss, both.detach())
