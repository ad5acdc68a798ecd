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
    factors = None if shares.weights is None else shares.divide(torch.ones_like(shares.weights))
    for key, term in terms.items():
        total = term.squares() if factors is None else term.squares(factors)
        if total is None:
            total = _written_out(term, shares.count, factors, memory)
        found[key] = total * shares.count if factors is None else total
    return found


def _written_out(term: Term, samples: int, factors: Tensor | None, memory: int) -> Tensor:
    """Σ_i c_i G_i ∘ G_i, a slice of samples at a time."""
    one = term.rows(slice(0, 1))
    step = max(1, memory // max(1, one.numel() * one.element_size()))
    total: Tensor | float = 0.0
    for start in range(0, samples, step):
        part = slice(start, min(start + step, samples))
        own = None if factors is None else factors[part]
        total = total + Dense(term.rows(part)).squares(own)
    assert isinstance(total, Tensor)
    return total
