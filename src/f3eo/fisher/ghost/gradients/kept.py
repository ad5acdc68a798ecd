"""Per-sample gradients of every parameter, kept for a second pass that they perturb."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.fisher.ghost.gradients.norms import Contribution, components, leaf_gradients, single_term
from f3eo.fisher.ghost.gradients.terms import Dense, Outer, Rows, Term

MEMORY_TRAFFIC = 16
"""Multiplications that a gradient's element costs to be written and read again, over those of the
Gram form: at 6 T² (m + n) against m n elements (measured on a CPU with AVX-512)."""


@dataclass(frozen=True)
class Gathered:
    """Over all samples of a batch, everything detached.

    Args:
        squared: ‖G_i‖² over the structured leaves, (B,).
        totals: Σ_i G_i for every leaf that contributes, by the leaf's id.
        terms: G_i for every structured leaf that contributes, by the leaf's id.
        unit: the coarsest rounding unit on the way to them.
    """

    squared: Tensor
    totals: dict[int, Tensor]
    terms: dict[int, Term]
    unit: float


@torch.no_grad()
def gather(
    contributions: list[Contribution],
    leaves: Sequence[Tensor],
    structured: Sequence[bool],
    sources: Callable[[Tensor], frozenset[int]],
    losses: Tensor,
    memory: int,
    unit: float,
) -> Gathered | None:
    """Norms, totals and the gradients themselves, or None where these take more than `memory`.

    Args:
        contributions: of every use; the list is emptied, and each forgotten after its turn.
        leaves: the parameters.
        structured: whether a leaf's gradient counts in the norm.
        sources: ids of the leaves that a tensor derives from.
        losses: (B,); gives B, dtype and device.
        memory: bytes that gradients written out may take together.
        unit: see `Gathered`.
    """
    by_id = {id(p): p for p in leaves}
    counted = {id(p) for p, s in zip(leaves, structured, strict=True) if s}
    samples = len(losses)
    squared = torch.zeros_like(losses)
    totals: dict[int, Tensor] = {}
    terms: dict[int, Term] = {}
    groups = components(contributions, sources)[::-1]
    contributions.clear()
    while groups:
        ids, group = groups.pop()
        members = [by_id[i] for i in ids]
        term = single_term(group, members)
        if term is not None and (_compact(term) or not ids & counted):
            found = {id(members[0]): term}
        else:
            memory -= samples * sum(by_id[i].numel() * by_id[i].element_size() for i in ids)
            if memory < 0:
                return None
            inputs = iter([t for c in group for t in c.inputs])
            rows = leaf_gradients(group, members, sources, slice(0, samples), inputs)
            found = {id(p): Dense(r) for p, r in zip(members, rows, strict=True)}
        for key, term in found.items():
            totals[key] = term.total()
            if key in counted:
                squared += term.squared_norms()
                terms[key] = term
        group = term = inputs = None  # what is not in `terms` goes
    return Gathered(squared, totals, terms, unit)


def _compact(term: Term) -> bool:
    """Whether a second pass is cheaper with the term as it is than with its gradients written."""
    if isinstance(term, Rows):
        return True
    if not isinstance(term, Outer):
        return False
    positions, m, n = term.left.shape[1], term.left.shape[2], term.right.shape[2]
    return positions == 1 or positions**2 * (m + n) <= MEMORY_TRAFFIC * m * n
