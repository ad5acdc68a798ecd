"""Squared norms per parameter, differentiable and kept, against a dense loop in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cases import MODELS, Case, case
from dense import Differentiable, relative
from f3eo import DoubleBackward, PerSample
from f3eo.closure.problem import Problem

EXACT = 1e-9
MEMORY = [2**28, 1]
"""All samples at once, and one at a time."""

_unused = {"allow_unused": True, "materialize_grads": True}


def parameters(c: Case) -> list[Tensor]:
    return [p for p in c.model.parameters() if p.requires_grad]


def problem(c: Case, structured: list[bool] | None = None) -> Problem:
    leaves = parameters(c)
    return Problem(c.losses, c.batch, leaves, structured or [True] * len(leaves), c.model)


def loop(c: Case) -> list[list[Tensor]]:
    """∇ℓ_i with its graph, for every sample and every parameter, by a pass of its own."""
    rows = []
    for i in range(len(c.batch[0])):
        with sdpa_kernel(SDPBackend.MATH), Differentiable():
            loss = c.losses(*(t[i : i + 1] for t in c.batch)).mean()
        rows.append(list(torch.autograd.grad(loss, parameters(c), create_graph=True, **_unused)))
    return rows


def squared(rows: list[list[Tensor]], k: int) -> Tensor:
    """‖∇ℓ_ip‖² of parameter k for every sample."""
    return torch.stack([row[k].square().sum() for row in rows])


def assert_equal(by_leaf: dict[int, Tensor], c: Case) -> None:
    rows = loop(c)
    for k, p in enumerate(parameters(c)):
        expected = squared(rows, k)
        assert by_leaf[id(p)].shape == expected.shape
        assert (by_leaf[id(p)] - expected).norm() <= EXACT * expected.norm()


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", MODELS)
def test_differentiable_norms_of_every_parameter(name, memory):
    """Among the rows: tied (tied), derived (no_rules) and reused parameters (sequence_first)."""
    c = case(name)
    ghost = PerSample(DoubleBackward(), memory=memory).record(problem(c))
    norms = ghost.norms(ghost.losses)
    assert_equal(norms.by_leaf, c)
    assert relative(sum(norms.by_leaf.values()), norms.squared) < 1e-14


# The missing one writes a parameter into another tensor: it has no second pass.
@pytest.mark.parametrize("name", [n for n in MODELS if n != "sequence_first"])
def test_kept_norms_of_every_parameter(name):
    """Of ω_i ℓ_i, ω_i = 1/B."""
    c = case(name)
    kept = PerSample().record(problem(c), differentiable=False).keep().gradients
    assert_equal({i: n * len(c.batch[0]) ** 2 for i, n in kept.by_leaf.items()}, c)
    assert relative(sum(kept.by_leaf.values()), kept.squared) < 1e-14


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", ["mlp", "tied", "no_rules"])
def test_the_mean_norm_of_one_parameter_is_differentiable(name, memory):
    c = case(name)
    ghost = PerSample(DoubleBackward(), memory=memory).record(problem(c))
    by_leaf = ghost.norms(ghost.losses).by_leaf
    rows, leaves = loop(c), parameters(c)
    for k, p in enumerate(leaves):
        found = torch.autograd.grad(by_leaf[id(p)].mean(), leaves, retain_graph=True, **_unused)
        mean = squared(rows, k).mean()
        expected = torch.autograd.grad(mean, leaves, retain_graph=True, **_unused)
        scale = sum(e.norm() for e in expected)
        for a, b in zip(found, expected, strict=True):
            assert (a - b).norm() <= EXACT * scale


@pytest.mark.parametrize("differentiable", [True, False])
def test_parameters_outside_of_the_structure_have_no_norm(differentiable):
    c = case("mlp")
    structured = [i % 2 == 0 for i in range(len(parameters(c)))]
    ghost = PerSample(DoubleBackward()).record(problem(c, structured))
    norms = ghost.norms(ghost.losses) if differentiable else ghost.keep().gradients
    counted = {id(p) for p, s in zip(parameters(c), structured, strict=True) if s}
    assert set(norms.by_leaf) == counted and len(norms.totals) == len(structured)
