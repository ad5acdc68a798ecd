import math

import pytest
import torch
from torch import nn

from bench.continual.blobs import BLOBS, clouds
from f3eo.bench.continual.run.judge import at_rest
from f3eo.bench.continual.run.structure import NAMES, Probe, structure


@pytest.fixture
def model():
    made = BLOBS.seeded_model(3).double()
    made.eval()
    return made


def probed(*parts, size=500):
    probe = Probe(0, size)
    for seed, stage in parts:
        x, y = clouds(seed, stage).train
        probe.add(clouds(seed, stage).train._replace(x=x.double(), y=y))
    return probe


def dense(model, samples):
    """Gradients of every sample, (N, P), by a loop."""
    rows = []
    for x, y in zip(*samples, strict=True):
        grads = torch.autograd.grad(
            BLOBS.loss(model(x[None]), y[None]).sum(), list(model.parameters())
        )
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows).detach()


def test_the_numbers_equal_the_dense_truth(model):
    probe = probed((0, 0), (0, 1), size=40)
    samples = probe.samples
    found = structure(model, BLOBS.loss, probe)
    g, theta = dense(model, samples), torch.cat([p.detach().flatten() for p in model.parameters()])
    assert found["trace"] == pytest.approx(float(g.square().sum(1).mean()))
    # By rows D² is the mean square of a row of weights, and the square itself of a bias.
    own = [p.detach().square() for p in model.parameters()]
    scales = [s.mean(1, keepdim=True).expand_as(s) if s.ndim > 1 else s for s in own]
    squares = torch.cat([s.flatten() for s in scales])
    assert found["relative_trace"] == pytest.approx(float((g.square() @ squares).mean()))

    count = probe.trained  # N: the forty stand for all
    assert count == 120 and len(samples.y) == 40
    spread = count * g.square().mean(0)

    def excess(log_alpha):
        alpha = math.exp(log_alpha)
        return alpha * float(theta.square().sum()) - float((spread / (spread + alpha)).sum())

    low, high = -20.0, 20.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    alpha = math.exp(low)
    gamma = float((spread / (spread + alpha)).sum())
    with torch.no_grad():
        loss = float(BLOBS.loss(model(samples.x), samples.y).mean())
    divergence = alpha * float(theta.square().sum()) - gamma
    divergence += float((1 + spread / alpha).log().sum())
    assert found["accuracy"] == pytest.approx(-loss - gamma / (2 * count))
    assert found["complexity"] == pytest.approx(divergence / (2 * count))
    assert found["free_energy"] == pytest.approx(found["complexity"] - found["accuracy"])


def test_measuring_leaves_the_model_as_it_was(model):
    model.train()
    before = [p.clone() for p in model.parameters()]
    random = torch.get_rng_state()
    with at_rest(model):
        structure(model, BLOBS.loss, probed((0, 0)))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_probe_shares_its_size_among_the_stages_so_far():
    probe = Probe(0, 30)
    for stage, each in enumerate((30, 15, 10)):
        train = clouds(0, stage).train
        probe.add(train)
        assert len(probe.samples.y) == 30 and probe.trained == 60 * (stage + 1)
        own = probe.samples.x[-each:]
        assert all(any(torch.equal(x, other) for other in train.x) for x in own)


def test_what_does_not_exist_is_none():
    model = nn.Linear(4, 2)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    probe = probed((0, 0))
    probe._kept = [probe._kept[0]._replace(x=probe._kept[0].x.float())]
    found = structure(model, BLOBS.loss, probe)  # at the prior's mean there is no precision
    assert found["trace"] > 0 and found["free_energy"] is None
    nn.init.constant_(model.weight, math.nan)
    assert structure(model, BLOBS.loss, probe) == dict.fromkeys(NAMES)
