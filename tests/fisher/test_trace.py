"""`fisher_trace(differentiable=False)`: the same number, without a graph, for less."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cases import case
from dense import relative, truth
from f3eo import (
    Compiled,
    DoubleBackward,
    MiniBatch,
    ModelSampled,
    PerSample,
    Sign,
    Weighted,
    fisher_trace,
)

# (estimator, whether the closure returns a likelihood)
ESTIMATORS = {
    "per sample": (PerSample(), False),
    "per sample, double backward": (PerSample(DoubleBackward(), power=2), False),
    "per sample, little memory": (PerSample(memory=1), False),
    "compiled": (Compiled(), False),
    "mini-batch": (MiniBatch(), False),
    "sign": (Sign(), False),
    "balanced sign": (Sign(balanced=True), False),
    "model sampled": (ModelSampled(), True),
    "model sampled, exact": (ModelSampled(probes=None), True),
    "model sampled, signs": (ModelSampled(Sign(), probes=3), True),
}
MODELS = ["mlp", "cnn", "attention", "sequence_first", "tied", "no_rules"]


def seeded():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_per_sample_is_the_dense_truth(name, enabled):
    c = case(name)
    expected = truth(c.model, c.losses, *c.batch)
    for memory in (2**28, 1):
        with torch.set_grad_enabled(enabled):
            losses, trace = fisher_trace(
                c.model,
                c.losses,
                *c.batch,
                estimator=PerSample(memory=memory),
                differentiable=False,
            )
        assert relative(trace, expected.trace) < 1e-12
        assert relative(losses, expected.losses) < 1e-12
        assert not trace.requires_grad and not losses.requires_grad


@pytest.mark.parametrize("enabled", [True, False])
def test_the_mini_batch_s_is_the_dense_truth(enabled):
    c = case("mlp")
    expected = truth(c.model, c.losses, *c.batch).gradient.square().sum()
    with torch.set_grad_enabled(enabled):
        _, trace = fisher_trace(
            c.model, c.losses, *c.batch, estimator=MiniBatch(), differentiable=False
        )
    assert relative(trace, expected) < 1e-12


@pytest.mark.parametrize("balanced", [False, True])
def test_that_of_signs_is_the_dense_truth(balanced):
    c, estimator = case("mlp"), Sign(balanced=balanced)
    gradients = truth(c.model, c.losses, *c.batch).gradients
    signs = estimator.signs(len(gradients), seeded()).to(gradients)
    expected = (signs @ gradients).square().sum() / len(signs)
    _, trace = fisher_trace(
        c.model, c.losses, *c.batch, estimator=estimator, generator=seeded(), differentiable=False
    )
    assert relative(trace, expected) < 1e-12


def test_the_model_sampled_one_is_the_dense_truth():
    """Tr Σ_i J_iᵀ (diag p − p pᵀ) J_i / B from the Jacobian of the logits."""
    c = case("mlp")
    x, _ = c.batch
    expected, parameters = torch.zeros((), dtype=torch.float64), list(c.model.parameters())
    for i in range(len(x)):
        logits = c.model(x[i : i + 1])[0]
        rows = [torch.autograd.grad(z, parameters, retain_graph=True) for z in logits]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        p = logits.detach().softmax(0)
        expected += (jacobian.T @ (p.diag() - p.outer(p)) @ jacobian).trace() / len(x)
    _, trace = fisher_trace(
        c.model, c.drawn, *c.batch, estimator=ModelSampled(probes=None), differentiable=False
    )
    assert relative(trace, expected) < 1e-12


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_gives_the_number_of_the_attached_trace(name):
    """With the same draws from the generator, under no_grad() too, and with weights."""
    estimator, likelihood = ESTIMATORS[name]
    c = case("mlp")
    weights = torch.arange(1.0, len(c.batch[0]) + 1).double()

    def weighted(x, y):
        return Weighted(c.losses(x, y), weights)

    for closure in (c.drawn,) if likelihood else (c.losses, weighted):
        expected = fisher_trace(c.model, closure, *c.batch, estimator=estimator, generator=seeded())
        assert all(t.requires_grad for t in expected)
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                found = fisher_trace(
                    c.model,
                    closure,
                    *c.batch,
                    estimator=estimator,
                    generator=seeded(),
                    differentiable=False,
                )
            for a, b in zip(found, expected, strict=True):
                assert not a.requires_grad
                assert relative(a, b) < 1e-12


class Attends(nn.Module):
    """Attention that remembers whether its kernel was fused."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 24), nn.Linear(8, 3)
        self.fused = None

    def forward(self, x):
        q, k, v = self.first(x).unsqueeze(1).chunk(3, -1)
        z = F.scaled_dot_product_attention(q, k, v)
        self.fused = "ScaledDotProduct" in z.grad_fn.name()
        return self.last(z.mean((1, 2)))


@pytest.mark.parametrize("estimator", [PerSample(), MiniBatch(), Sign()])
def test_fused_kernels_stay_and_no_graph_of_the_gradient_is_built(estimator, monkeypatch):
    torch.manual_seed(0)
    model, x, y = Attends(), torch.randn(4, 5, 8), torch.tensor([0, 1, 2, 0])
    graphs, grad = [], torch.autograd.grad

    def watched(*args, **kwargs):
        graphs.append(bool(kwargs.get("create_graph")))
        return grad(*args, **kwargs)

    def closure(x, y):
        return F.cross_entropy(model(x), y, reduction="none")

    monkeypatch.setattr(torch.autograd, "grad", watched)
    for differentiable in (True, False):
        graphs.clear()
        fisher_trace(model, closure, x, y, estimator=estimator, differentiable=differentiable)
        assert model.fused != differentiable and any(graphs) == differentiable


def test_a_closure_that_draws_is_drawn_once():
    """Also where the pass without materialized gradients comes after another one."""
    model, (x, y) = case("mlp").model, case("mlp").batch

    def closure(x, y):
        noise = torch.randn_like(x)
        drawn.append(noise)
        return F.cross_entropy(model(x + noise), y, reduction="none")

    states = []
    for memory in (2**28, 1):
        drawn = []
        torch.manual_seed(0)
        _, trace = fisher_trace(
            model, closure, x, y, estimator=PerSample(memory=memory), differentiable=False
        )
        states.append((trace, torch.get_rng_state()))
        assert len(drawn) == (1 if memory > 1 else 2)
        assert all(torch.equal(noise, drawn[0]) for noise in drawn)
    assert relative(states[1][0], states[0][0]) < 1e-12
    assert torch.equal(states[1][1], states[0][1])
