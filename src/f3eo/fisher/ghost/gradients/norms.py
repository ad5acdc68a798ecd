"""Squared norms of per-sample gradients over all parameters, from their terms at every use."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from f3eo.fisher.ghost.gradients.recompute import recomputed
from f3eo.fisher.ghost.gradients.terms import Outer, Term, rows_of
from f3eo.tensors import wide


@dataclass(frozen=True)
class Contribution:
    """Per-sample gradients that one use gives to some parameters (leaves, or derived from leaves).

    Args:
        parameters: the tensors.
        rows: (slice of samples, inputs) → per-sample gradients (n, *shape) of each.
        inputs: the tensors that `rows` uses besides leaves.
        term: their closed form, if there is one parameter and it has one.
    """

    parameters: list[Tensor]
    rows: Callable[[slice, Sequence[Tensor]], Sequence[Tensor]]
    inputs: list[Tensor]
    term: Term | None = None


def contribution(parameter: Tensor, term: Term) -> Contribution:
    """The contribution of one term."""
    inputs = {name: t for name, t in vars(term).items() if isinstance(t, Tensor)}

    def rows(part: slice, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        copy = replace(term, **dict(zip(inputs, tensors, strict=True)))  # pyright: ignore
        return (copy.rows(part),)

    return Contribution([parameter], rows, list(inputs.values()), term)


@dataclass(frozen=True)
class Norms:
    """Over all samples of a batch.

    Args:
        squared: ‖G_i‖² over the structured leaves, (B,), differentiable.
        totals: Σ_i G_i for every leaf that contributes, by the leaf's id, detached.
    """

    squared: Tensor
    totals: dict[int, Tensor]


def norms(
    contributions: Sequence[Contribution],
    leaves: Sequence[Tensor],
    structured: Sequence[bool],
    sources: Callable[[Tensor], frozenset[int]],
    losses: Tensor,
    memory: int,
) -> Norms:
    """Squared norms and totals of Σ over uses, cross terms of several uses included.

    Args:
        contributions: of every use.
        leaves: the parameters.
        structured: whether a leaf's gradient counts in the norm.
        sources: ids of the leaves that a tensor derives from.
        losses: (B,); gives B, dtype and device.
        memory: bytes that gradients written out may take at a time.
    """
    counted = {id(p) for p, s in zip(leaves, structured, strict=True) if s}
    dtype = torch.promote_types(losses.dtype, torch.float32)
    squared = losses.new_zeros(len(losses), dtype=dtype)
    totals: dict[int, Tensor] = {}
    for ids, group in components(contributions, sources):
        members = [p for p in leaves if id(p) in ids]
        term = single_term(group, members)
        if term is not None and term.closed():
            with torch.no_grad():
                totals[id(members[0])] = term.total()
            if id(members[0]) in counted:
                squared = squared + term.squared_norms().to(squared)
        else:
            written, sums = _written_out(group, members, counted, sources, len(losses), memory)
            squared = squared + written.to(squared)
            totals.update({id(p): t for p, t in zip(members, sums, strict=True)})
    return Norms(squared, totals)


def components(
    contributions: Sequence[Contribution], sources: Callable[[Tensor], frozenset[int]]
) -> list[tuple[frozenset[int], list[Contribution]]]:
    """Contributions grouped so that no leaf is in two groups."""
    owner: dict[int, int] = {}
    groups: dict[int, tuple[frozenset[int], list[Contribution]]] = {}
    for number, item in enumerate(contributions):
        ids = frozenset().union(*(sources(p) for p in item.parameters))
        joined = [groups.pop(k) for k in sorted({owner[i] for i in ids if i in owner})]
        ids = ids.union(*(g[0] for g in joined))
        groups[number] = ids, [c for _, group in joined for c in group] + [item]
        owner.update(dict.fromkeys(ids, number))
    return list(groups.values())


def single_term(group: Sequence[Contribution], members: Sequence[Tensor]) -> Term | None:
    """The closed form of a group of one leaf; outer products join as more positions."""
    if len(members) != 1 or any(c.parameters[0] is not members[0] for c in group):
        return None
    terms = [c.term for c in group]
    if len(terms) == 1:
        term = terms[0]
    elif all(isinstance(t, Outer) and t.shape == terms[0].shape for t in terms):  # pyright: ignore
        outers = [t for t in terms if isinstance(t, Outer)]
        left = torch.cat([t.left for t in outers], 1)
        term = Outer(left, torch.cat([t.right for t in outers], 1), outers[0].shape)
    else:
        term = None
    return term


def _written_out(
    group: Sequence[Contribution],
    members: Sequence[Tensor],
    counted: set[int],
    sources: Callable[[Tensor], frozenset[int]],
    samples: int,
    memory: int,
) -> tuple[Tensor, list[Tensor]]:
    """Norms and totals from gradients written out, a slice of samples at a time."""
    written = {id(p): p for c in group for p in c.parameters} | {id(p): p for p in members}
    step = max(1, memory // sum(p.numel() * p.element_size() for p in written.values()))
    inputs = [t for c in group for t in c.inputs]

    def evaluate(part: slice, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        gradients = leaf_gradients(group, members, sources, part, iter(tensors))
        kept = [rows_of(g) for p, g in zip(members, gradients, strict=True) if id(p) in counted]
        squared = _sum(wide(g).square().sum(1) for g in kept)
        if squared is None:
            squared = gradients[0].new_zeros(len(gradients[0]))
        return squared, *(g.detach().sum(0) for g in gradients)

    if step >= samples:
        squared, *totals = evaluate(slice(0, samples), inputs)
        return squared, totals
    parts = [slice(i, min(i + step, samples)) for i in range(0, samples, step)]
    results = [recomputed(partial(evaluate, part), inputs, members) for part in parts]
    squared = torch.cat([r[0] for r in results])
    return squared, [torch.stack(t).sum(0) for t in zip(*(r[1:] for r in results), strict=True)]


def leaf_gradients(
    group: Sequence[Contribution],
    members: Sequence[Tensor],
    sources: Callable[[Tensor], frozenset[int]],
    part: slice,
    tensors: Iterator[Tensor],
) -> list[Tensor]:
    """Per-sample gradients of every leaf of a group, (n, *shape) each."""
    direct: dict[int, Tensor] = {}
    origins = {id(p): p for c in group for p in c.parameters}
    for item in group:
        found = item.rows(part, [next(tensors) for _ in item.inputs])
        for parameter, rows in zip(item.parameters, found, strict=True):
            known = direct.get(id(parameter))
            direct[id(parameter)] = rows if known is None else known + rows
    gradients = {id(p): direct.pop(id(p)) for p in members if id(p) in direct}
    for key, rows in direct.items():
        # Derived from leaves by operations without samples: pull back through their graph.
        origin = [p for p in members if id(p) in sources(origins[key])]
        pulled = torch.autograd.grad(
            origins[key],
            origin,
            rows,
            retain_graph=True,
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
            is_grads_batched=True,
        )
        for p, g in zip(origin, pulled, strict=True):
            if g is not None:
                known = gradients.get(id(p))
                gradients[id(p)] = g if known is None else known + g
    count = part.stop - part.start
    return [
        gradients[id(p)] if id(p) in gradients else p.new_zeros(count, *p.shape) for p in members
    ]


def _sum(tensors: Iterable[Tensor]) -> Tensor | None:
    total = None
    for t in tensors:
        total = t if total is None else total + t
    return total
