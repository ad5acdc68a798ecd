"""Per-sample gradients of every parameter, kept for a second pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from f3eo.closure.problem import Problem
from f3eo.fisher.ghost.gradients.contribution import Group, grouped, leaf_gradients
from f3eo.fisher.ghost.gradients.norms import Norms, not_finite
from f3eo.fisher.ghost.gradients.per_use import per_use_gradients
from f3eo.fisher.ghost.gradients.sums import scaled, squared_norms, squares, totals
from f3eo.fisher.ghost.gradients.terms import Dense, Term
from f3eo.fisher.ghost.recording.layout import Layout
from f3eo.fisher.ghost.recording.recording import Recording
from f3eo.fisher.metric import Diagonals


@dataclass(frozen=True)
class KeptGradients(Norms):
    """Norms, detached, and the directions along which samples move.

    Args:
        moves: D² G_i for every structured leaf that contributes, by the leaf's id; of S times the
            losses in float16.
        euclidean: ‖G_i‖² over the structured leaves, (B,).
        unit: the coarsest rounding unit on the way to them.
        squares: Σ_i G_i ∘ G_i / ω_i for every structured leaf that contributes, by the leaf's id;
            None if the problem did not ask for it.
    """

    moves: dict[int, Term]
    euclidean: Tensor
    unit: float
    squares: dict[int, Tensor] | None = None

    def over(self, factor: float) -> "KeptGradients":
        """See `Norms.over`; the moves stay those of S times the losses."""
        if factor == 1:
            return self
        norms, squared = super().over(factor), self.squares
        if squared is not None:
            squared = {key: own / factor**2 for key, own in squared.items()}
        euclidean = self.euclidean / factor**2
        if self.euclidean is self.squared:
            euclidean = norms.squared
        return replace(
            self,
            **vars(Norms(norms.squared, norms.by_leaf, norms.totals)),
            euclidean=euclidean,
            squares=squared,
        )


@torch.no_grad()
def keep(
    recording: Recording,
    layouts: Sequence[Sequence[Layout]],
    deltas: list[Tensor | None],
    problem: Problem,
    memory: int,
    unit: float,
    diagonals: Diagonals,
    *,
    summed: bool = True,
) -> KeptGradients | None:
    """Norms, totals and the gradients themselves; None where these take more than `memory`.

    Args:
        recording: the pass; its uses are released, each as soon as its gradients are computed.
        layouts, problem: see `norms`.
        deltas: see `norms`; the list is emptied.
        memory: bytes that gradients written out may take together.
        unit: see `KeptGradients`.
        diagonals: D.
        summed: whether the totals are computed; without they are empty.
    """
    losses, leaves, structured = recording.output.losses, problem.parameters, problem.structured
    counted = {id(p) for p, s in zip(leaves, structured, strict=True) if s}
    contributions = per_use_gradients(recording.uses, layouts, deltas, losses, attached=False)
    recording.uses.clear()
    deltas.clear()
    groups = grouped(contributions, leaves)
    contributions.clear()
    every = slice(0, len(losses))

    def hold(leaf: Tensor, term: Term) -> bool:
        return id(leaf) not in counted or term.compact()

    terms = terms_of(groups, every, memory, hold)
    if terms is None:
        return None
    sums = totals(terms) if summed else {}
    for key in terms.keys() - counted:
        del terms[key]
    own = squares(terms, recording.output.shares, memory) if problem.squares else None
    by_leaf = squared_norms(terms)
    squared = euclidean = _sum(by_leaf, losses)
    if diagonals:
        terms = scaled(terms, diagonals)
        by_leaf = squared_norms(terms)
        squared, terms = _sum(by_leaf, losses), scaled(terms, diagonals)
    return KeptGradients(squared, by_leaf, sums, terms, euclidean, unit, own)


def terms_of(
    groups: list[Group], part: slice, memory: int, hold: Callable[[Tensor, Term], bool]
) -> dict[int, Term] | None:
    """Per-sample gradients of every leaf, by its id; None where they take more than `memory`.

    Args:
        groups: contributions, each released as soon as its gradients are computed.
        part: all samples.
        memory: bytes that gradients written out may take together.
        hold: (leaf, closed form) → whether it is kept as it is, and not written out.
    """
    groups.reverse()
    terms: dict[int, Term] = {}
    while groups:
        group = groups.pop()
        term = group.term if len(group.contributions) == 1 else group.joined()
        first = group.leaves[0]
        if term is not None and hold(first, term):
            terms[id(first)] = term
        elif (memory := memory - part.stop * group.size) < 0:
            return None
        elif group.term is not None:
            terms[id(first)] = Dense(group.term.rows(part))
        else:
            inputs = iter([t for c in group.contributions for t in c.inputs])
            rows = leaf_gradients(group, part, inputs)
            terms |= {id(p): Dense(r) for p, r in zip(group.leaves, rows, strict=True)}
        group = term = inputs = None  # releases what is not in `terms`
    return terms


def not_finite_kept(problem: Problem, losses: Tensor) -> KeptGradients:
    """NaN for every norm and every total, and no gradients."""
    return KeptGradients(
        **vars(not_finite(problem, losses)),
        moves={},
        euclidean=torch.full_like(losses, torch.nan),
        unit=1.0,
        squares={id(p): torch.full_like(p, torch.nan) for p in problem.structured_parameters}
        if problem.squares
        else None,
    )


def _sum(by_leaf: Mapping[int, Tensor], losses: Tensor) -> Tensor:
    dtype = torch.promote_types(losses.dtype, torch.float32)
    total = torch.zeros_like(losses, dtype=dtype)
    for own in by_leaf.values():
        total += own
    return total
