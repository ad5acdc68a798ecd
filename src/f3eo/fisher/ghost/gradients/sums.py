"""What all terms of a measurement add up to, by the id of the parameter."""

from collections.abc import Mapping

import torch
from torch import Tensor

from f3eo.closure.output import Shares
from f3eo.fisher.ghost.gradients.terms import Dense, Term
from f3eo.fisher.metric import Diagonals


def totals(terms: Mapping[int, Term]) -> dict[int, Tensor]:
    """Σ_i G_i of every term."""
    return {key: term.total() for key, term in terms.items()}


def scaled(terms: Mapping[int, Term], diagonals: Diagonals) -> dict[int, Term]:
    """D ⊙ G_i of every term; G_i itself where D is the identity."""
    return {k: t.scaled(diagonals[k]) if k in diagonals else t for k, t in terms.items()}


def squared_norms(terms: Mapping[int, Term]) -> dict[int, Tensor]:
    """‖G_i‖² of every term, (N,) each."""
    return {key: term.squared_norms() for key, term in terms.items()}


def squares(terms: Mapping[int, Term], shares: Shares, memory: int) -> dict[int, Tensor]:
    """Σ_i ω_i ∇ℓ_i ∘ ∇ℓ_i of every term, in float32 or wider.

    Args:
        terms: of G_i = ω_i ∇ℓ_i, so that the sum is Σ_i G_i ∘ G_i / ω_i.
        shares: ω_i.
        memory: bytes that gradients written out may take at a time.
    """
    found: dict[int, Tensor] = {}
    like = torch.ones(shares.count) if shares.weights is None else torch.ones_like(shares.weights)
    factors = shares.divide(like)  # on the smaller side of a product, they cost nothing
    for key, term in terms.items():
        total = term.squares(factors)
        found[key] = _written_out(term, factors, memory) if total is None else total
    return found


def _written_out(term: Term, factors: Tensor, memory: int) -> Tensor:
    """Σ_i c_i G_i ∘ G_i, a slice of samples at a time."""
    one = term.rows(slice(0, 1))
    step = max(1, memory // max(1, one.numel() * one.element_size()))
    total: Tensor | float = 0.0
    for start in range(0, len(factors), step):
        part = slice(start, min(start + step, len(factors)))
        total = total + Dense(term.rows(part)).squares(factors[part])
    assert isinstance(total, Tensor)
    return total
