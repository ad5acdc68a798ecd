"""Norms that a measurement keeps, against the dense truth: parts, chunks, weights, parameters."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from cases import Case, case
from dense import flat, relative, truth
from f3eo import ByRow, Compiled, DoubleBackward, PerSample, Sign, Weighted
from f3eo.closure.problem import Problem
from f3eo.extend import Gradients
from f3eo.fisher.parts import Measurement

TINY = 1e-11
ENGINES = {"differences": None, "exact": DoubleBackward()}


def problem(c: Case, closure=None, batch=None) -> Problem:
    leaves = [p for p in c.model.parameters() if p.requires_grad]
    batch = c.batch if batch is None else batch
    return Problem(closure or c.losses, batch, leaves, [True] * len(leaves), c.model)


def by_leaf(c: Case, squares: Tensor) -> list[Tensor]:
    """Squares (…, P) of all parameters in a row, summed over every parameter."""
    sizes = [p.numel() for p in c.model.parameters() if p.requires_grad]
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return [squares[..., a:b].sum(-1) for a, b in pairwise(ends)]


def diagonal(c: Case) -> Tensor:
    """D of `ByRow`, all parameters in a row."""
    rows = []
    for p in c.model.parameters():
        if p.ndim < 2:
            rows.append(p.detach().abs().flatten())
        else:
            own = p.detach().flatten(1)
            rows.append(own.square().mean(1, keepdim=True).sqrt().expand_as(own).flatten())
    return torch.cat(rows)


def assert_truth(found: Gradients, c: Case, w: Tensor, d: Tensor | float = 1.0) -> None:
    """Everything that norms say, against Σ_i w_i of the dense squares."""
    w = w / w.sum()
    g = truth(c.model, c.losses, *c.batch).gradients
    scaled, norms = (d * g).square(), found.norms
    leaves = [p for p in c.model.parameters() if p.requires_grad]
    for p, own in zip(leaves, by_leaf(c, w @ scaled), strict=True):
        assert relative(norms.trace_by_leaf()[id(p)], own) < TINY
    assert relative(sum(norms.trace_by_leaf().values()), found.trace) < TINY
    assert relative(norms.contributions(), w * scaled.sum(1)) < TINY
    assert relative(norms.euclidean_trace(), w @ g.square().sum(1)) < TINY
    assert norms.squared_shares() == pytest.approx(float(w.square().sum()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["mlp", "cnn", "tied"])
def test_norms_are_the_dense_ones(name, engine):
    c = case(name)
    found = PerSample(ENGINES[engine]).gradients(problem(c))
    assert_truth(found, c, torch.ones(len(c.batch[0])).double())


def test_norms_of_a_measurement_without_h_with_its_gradient():
    c = case("mlp")
    found = PerSample().first_order(problem(c))
    assert_truth(found, c, torch.ones(6).double())
    expected = truth(c.model, c.losses, *c.batch)
    assert relative(flat(found.gradient), expected.gradient) < TINY
    assert relative(found.loss, expected.losses.mean()) < TINY
    assert found.structure is None and not found.loss.requires_grad


def test_norms_without_h_where_gradients_are_too_large_to_keep():
    c = case("cnn")
    assert_truth(PerSample(memory=1).first_order(problem(c)), c, torch.ones(5).double())


@pytest.mark.parametrize("first_order", [True, False])
def test_both_norms_with_a_metric(first_order):
    c = case("mlp")
    estimator = PerSample(metric=ByRow())
    found = (estimator.first_order if first_order else estimator.gradients)(problem(c))
    assert_truth(found, c, torch.ones(6).double(), diagonal(c))


def test_double_backward_measures_the_metric_alone():
    found = PerSample(DoubleBackward(), metric=ByRow()).gradients(problem(case("mlp")))
    assert found.norms.euclidean_trace() is None
    assert relative(sum(found.norms.trace_by_leaf().values()), found.trace) < TINY
    assert not any(own.requires_grad for own in found.norms.blocks[0].by_leaf.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_samples_count_by_their_weights(engine):
    c, w = case("mlp"), torch.tensor([3.0, 0, 1, 2, 5, 1]).double()
    closure = lambda x, y, w: Weighted(c.losses(x, y), w)  # noqa: E731
    found = PerSample(ENGINES[engine]).gradients(problem(c, closure, (*c.batch, w)))
    assert_truth(found, c, w)


@pytest.mark.parametrize("weighted", [False, True])
def test_chunks_give_the_norms_of_the_whole(weighted):
    """Of 4 and 2 samples, which count by their weights."""
    c, w = case("mlp"), torch.tensor([3.0, 0, 1, 2, 5, 1]).double()
    w = w if weighted else torch.ones(6).double()
    closure = (lambda x, y, w: Weighted(c.losses(x, y), w)) if weighted else c.losses
    batch = (*c.batch, w) if weighted else c.batch
    measure = Measurement(PerSample(), 1.0, 4)
    assert_truth(measure(problem(c, closure, batch), structure=True), c, w)


def test_a_part_stands_for_its_chunk():
    """Of 5 samples two chunks, 3 and 2; one sample of each is measured, and counts 3 : 2."""
    c = case("cnn")
    found = Measurement(PerSample(), 0.3, 3)(problem(c), structure=True)
    assert [block.weight for block in found.norms.blocks] == [3, 2]
    assert relative(sum(found.norms.trace_by_leaf().values()), found.trace) < TINY
    assert relative(found.norms.contributions().sum(), found.trace) < TINY
    assert found.norms.squared_shares() == pytest.approx(1 / 5)


def test_a_part_of_weighted_samples_does_not_tell_their_shares():
    c, w = case("mlp"), torch.arange(1.0, 7).double()
    closure = lambda x, y, w: Weighted(c.losses(x, y), w)  # noqa: E731
    found = Measurement(PerSample(), 0.5, None)(problem(c, closure, (*c.batch, w)), structure=True)
    assert found.norms.squared_shares() is None
    assert relative(found.norms.contributions().sum(), found.trace) < TINY


def test_norms_that_are_missing_in_one_are_missing_in_both():
    c = case("mlp")
    found = PerSample().gradients(problem(c))
    none = Sign().gradients(problem(c))
    assert none.norms is None and found.merged(none).norms is None
    assert Compiled(backend=None).estimator.loss_gradient(problem(c)).norms is None
