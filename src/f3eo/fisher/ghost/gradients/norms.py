"""Squared norms of per-sample gradients, per leaf and in total, differentiable."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from f3eo.closure.problem import Problem
from f3eo.fisher.ghost.gradients.contribution import Group, grouped, leaf_gradients, slices
from f3eo.fisher.ghost.gradients.per_use import per_use_gradients
from f3eo.fisher.ghost.gradients.recompute import recomputed
from f3eo.fisher.ghost.gradients.terms import rows_of
from f3eo.fisher.ghost.recording.layout import Layout
from f3eo.fisher.ghost.recording.recording import Recording
from f3eo.fisher.metric import Diagonals
from f3eo.tensors import wide


@dataclass(frozen=True)
class Norms:
    """Over all samples of a batch.

    Args:
        squared: ‖D G_i‖² over the structured leaves, (B,), differentiable.
        by_leaf: ‖D G_ip‖² for every structured leaf p that contributes, by the leaf's id; (B,)
            each, differentiable. Their sum is `squared`.
        totals: Σ_i G_i for every leaf that contributes, by the leaf's id, detached.
    """

    squared: Tensor
    by_leaf: dict[int, Tensor]
    totals: dict[int, Tensor]

    def over(self, factor: float) -> "Norms":
        """Those of the losses from those of S times the losses.

        Args:
            factor: S.
        """
        if factor == 1:
            return self
        return replace(
            self,
            squared=self.squared / factor**2,
            by_leaf={key: own / factor**2 for key, own in self.by_leaf.items()},
            totals={key: wide(total) / factor for key, total in self.totals.items()},
        )


def norms(
    recording: Recording,
    layouts: Sequence[Sequence[Layout]],
    deltas: Sequence[Tensor | None],
    problem: Problem,
    memory: int,
    diagonals: Diagonals = MappingProxyType({}),
) -> Norms:
    """Squared norms and totals of the sum over uses, cross terms of several uses included.

    Args:
        recording: the pass.
        layouts: of the outputs of each use.
        deltas: gradients of Σℓ in all outputs of all uses, in order.
        problem: the parameters, and which of them are structured.
        memory: bytes that gradients written out may take at a time.
        diagonals: D; default the identity.
    """
    losses, leaves, structured = recording.output.losses, problem.parameters, problem.structured
    contributions = per_use_gradients(
        recording.uses, layouts, deltas, losses, attached=recording.differentiable
    )
    counted = {id(p) for p, s in zip(leaves, structured, strict=True) if s}
    dtype = torch.promote_types(losses.dtype, torch.float32)
    squared = losses.new_zeros(len(losses), dtype=dtype)
    by_leaf: dict[int, Tensor] = {}
    totals: dict[int, Tensor] = {}
    for group in grouped(contributions, leaves):
        term = group.joined()
        own: dict[int, Tensor] = {}
        if term is not None and term.closed():
            leaf = group.leaves[0]
            with torch.no_grad():
                totals[id(leaf)] = term.total()
            if id(leaf) in counted:
                diagonal = diagonals.get(id(leaf))
                own[id(leaf)] = (
                    term if diagonal is None else term.scaled(diagonal)
                ).squared_norms()
        else:
            own, sums = _written_out(group, counted, len(losses), memory, diagonals)
            totals.update(sums)
        if own:
            squared = squared + _sum(list(own.values())).to(squared)
            by_leaf.update(own)
    return Norms(squared, by_leaf, totals)


def not_finite(problem: Problem, losses: Tensor) -> Norms:
    """NaN for every norm and every total."""
    nan = torch.full_like(losses, torch.nan)
    pairs = zip(problem.parameters, problem.structured, strict=True)
    totals = {id(p): torch.full_like(p, torch.nan) for p in problem.parameters}
    return Norms(nan, {id(p): nan for p, s in pairs if s}, totals)


def _written_out(
    group: Group, counted: set[int], samples: int, memory: int, diagonals: Diagonals
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Norms of the counted leaves and totals of all, a slice of samples at a time."""
    leaves = group.leaves
    structured = [id(p) in counted for p in leaves]
    parts = slices(group, samples, memory)
    inputs = [t for c in group.contributions for t in c.inputs]

    def evaluate(part: slice, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        gradients = leaf_gradients(group, part, iter(tensors))
        kept = []
        for p, g in zip(leaves, gradients, strict=True):
            if id(p) in counted:
                d = diagonals.get(id(p))
                kept.append(rows_of(g if d is None else d.times(g)))
        squares = [wide(g).square().sum(1) for g in kept]
        return *squares, *(g.detach().sum(0) for g in gradients)

    count = sum(structured)
    if len(parts) == 1:
        results = evaluate(parts[0], inputs)
        squares, totals = results[:count], results[count:]
    else:
        sliced = [recomputed(partial(evaluate, part), count, inputs, leaves) for part in parts]
        columns = list(zip(*sliced, strict=True))
        squares = [torch.cat(column) for column in columns[:count]]
        totals = [torch.stack(column).sum(0) for column in columns[count:]]
    ids = [id(p) for p, s in zip(leaves, structured, strict=True) if s]
    return dict(zip(ids, squares, strict=True)), {
        id(p): t for p, t in zip(leaves, totals, strict=True)
    }


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for t in tensors[1:]:
        total = total + t
    return total
