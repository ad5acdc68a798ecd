"""Sums of squares and inner products of per-sample gradients, against single samples."""

import pytest
import torch

from cases import MODELS, case
from dense import truth
from f3eo import PerSample
from f3eo.closure.problem import Problem
from f3eo.fisher.ghost import Products, Squares
from f3eo.fisher.ghost.gradients.terms import Outer, Rows, Term


def made(name, memory=2**28, structured=None, spoiled=False):
    """A recording, its leaves, and the gradients of every sample in each of them."""
    c = case(name)
    leaves = [p for p in c.model.parameters() if p.requires_grad]
    if spoiled:
        c.batch[0][0] = torch.inf
    structured = structured or [True] * len(leaves)
    problem = Problem(c.losses, c.batch, leaves, structured, c.model)
    ghost = PerSample(memory=memory).record(problem, differentiable=False)
    gradients = truth(c.model, c.losses, *c.batch).gradients
    rows = gradients.split([p.numel() for p in leaves], 1)
    return ghost, leaves, [r.view(-1, *p.shape) for r, p in zip(rows, leaves, strict=True)]


def check(name, memory):
    ghost, leaves, rows = made(name, memory)
    scale = torch.rand(len(ghost.losses)).double()
    vectors = {id(p): torch.randn_like(p) for p in leaves}
    squares = ghost.forms(Squares(), ghost.losses, scale)
    products = ghost.forms(Products(vectors), ghost.losses, scale)
    assert squares.keys() == products.keys() == vectors.keys()
    for p, g in zip(leaves, rows, strict=True):
        g = g * scale.view(-1, *[1] * p.ndim)
        inner = (g * vectors[id(p)]).reshape(len(g), -1).sum(1)
        torch.testing.assert_close(squares[id(p)], g.square().sum(0), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(products[id(p)], inner, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("memory", [2**28, 1], ids=["at once", "one at a time"])
@pytest.mark.parametrize("name", MODELS)
def test_they_are_those_of_single_samples(name, memory):
    check(name, memory)


@pytest.mark.parametrize("memory", [2**28, 1], ids=["at once", "one at a time"])
def test_a_term_of_one_s_own_needs_no_closed_form(monkeypatch, memory):
    for form in ("squares", "products"):
        for term in (Outer, Rows):
            monkeypatch.setattr(term, form, getattr(Term, form))
    check("attention", memory)


def test_only_structured_parameters_have_one():
    for name in ("mlp", "no_rules"):  # of single leaves, and of groups of leaves
        ghost, leaves, _ = made(name)
        structured = [k % 2 == 1 for k in range(len(leaves))]
        ghost, leaves, rows = made(name, structured=structured)
        found = ghost.forms(Squares(), ghost.losses)
        assert found.keys() == {id(p) for p in leaves[1::2]}
        for p, g in zip(leaves[1::2], rows[1::2], strict=True):
            torch.testing.assert_close(found[id(p)], g.square().sum(0))


def test_what_is_not_finite_is_nan_in_its_shape():
    ghost, leaves, _ = made("mlp", spoiled=True)
    for form, shape in (
        (Squares(), lambda p: p.shape),
        (Products({id(p): p for p in leaves}), lambda p: (6,)),
    ):
        found = ghost.forms(form, ghost.losses)
        for p in leaves:
            assert found[id(p)].shape == shape(p) and found[id(p)].isnan().all()
