"""Contributions: per-sample gradients that one use gives to its parameters, grouped by leaf."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from f3eo.fisher.ghost.gradients.terms import Outer, Term
from f3eo.fisher.ghost.recording.roles import Sources
from f3eo.fisher.ghost.symbolic_sizes import has_fixed_shape

Rows = Callable[[slice, Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class Contribution:
    """Per-sample gradients of some parameters from one use.

    Args:
        parameters: the tensors, leaves or derived from leaves.
        sources: ids of the leaves that each derives from.
        rows: (slice of samples, inputs) → per-sample gradients (n, *shape) of each.
        inputs: the tensors that `rows` uses besides leaves.
        term: closed form, if there is one parameter and it has one.
    """

    parameters: list[Tensor]
    sources: list[Sources]
    rows: Rows
    inputs: list[Tensor]
    term: Term | None = None


def contribution(parameter: Tensor, sources: Sources, term: Term) -> Contribution:
    """The contribution of one term."""
    inputs = {name: t for name, t in vars(term).items() if isinstance(t, Tensor)}

    def rows(part: slice, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        copy = replace(term, **dict(zip(inputs, tensors, strict=True)))  # pyright: ignore
        return (copy.rows(part),)

    return Contribution([parameter], [sources], rows, list(inputs.values()), term)


@dataclass(frozen=True)
class Group:
    """Contributions to some leaves; no leaf is in two groups.

    Args:
        leaves: the leaves, in the order of the parameters.
        contributions: all contributions to them.
        term: closed form, where one contribution is to one leaf directly.
        size: bytes of one sample's gradients of the leaves.
    """

    leaves: list[Tensor]
    contributions: list[Contribution]
    term: Term | None
    size: int

    def joined(self) -> Term | None:
        """The closed form of all contributions; outer products join as more positions."""
        if self.term is not None or len(self.contributions) == 1 or len(self.leaves) != 1:
            return self.term
        if any(c.parameters[0] is not self.leaves[0] for c in self.contributions):
            return None
        outers = [c.term for c in self.contributions if isinstance(c.term, Outer)]
        if len(outers) < len(self.contributions) or len({t.shape for t in outers}) > 1:
            return None
        left = torch.cat([t.left for t in outers], 1)
        return Outer(left, torch.cat([t.right for t in outers], 1), outers[0].shape)


def grouped(contributions: Sequence[Contribution], leaves: Sequence[Tensor]) -> list[Group]:
    """Group contributions so that no leaf is in two groups.

    Args:
        contributions: of every use.
        leaves: the parameters.
    """
    owner: dict[int, int] = {}
    groups: dict[int, tuple[Sources, list[Contribution]]] = {}
    for number, item in enumerate(contributions):
        ids = frozenset().union(*item.sources)
        joined = [groups.pop(k) for k in sorted({owner[i] for i in ids if i in owner})]
        ids = ids.union(*(g[0] for g in joined))
        groups[number] = ids, [c for _, group in joined for c in group] + [item]
        owner.update(dict.fromkeys(ids, number))
    return [
        _group(members, [p for p in leaves if id(p) in ids]) for ids, members in groups.values()
    ]


def _group(contributions: list[Contribution], leaves: list[Tensor]) -> Group:
    first = contributions[0]
    direct = len(contributions) == len(leaves) == 1 and first.parameters[0] is leaves[0]
    size = sum([p.numel() * p.element_size() for p in leaves])
    return Group(leaves, contributions, first.term if direct else None, size)


def slices(group: Group, samples: int, memory: int) -> list[slice]:
    """Slices of the samples whose gradients of a group, written out, fit into memory.

    Args:
        group: the group.
        samples: their number, at least 1.
        memory: bytes that gradients may take at a time; one sample's may take more.
    """
    written = {id(p): p for c in group.contributions for p in c.parameters}
    written |= {id(p): p for p in group.leaves}
    step = max(1, memory // sum(p.numel() * p.element_size() for p in written.values()))
    return [slice(i, min(i + step, samples)) for i in range(0, samples, step)]


def leaf_gradients(group: Group, part: slice, tensors: Iterator[Tensor]) -> list[Tensor]:
    """Per-sample gradients of every leaf of a group, (n, *shape) each.

    Args:
        group: the group.
        part: the samples.
        tensors: in place of the inputs of all contributions, in order.
    """
    direct: dict[int, Tensor] = {}
    origins: dict[int, tuple[Tensor, Sources]] = {}
    for item in group.contributions:
        results = item.rows(part, [next(tensors) for _ in item.inputs])
        for p, ids, rows in zip(item.parameters, item.sources, results, strict=True):
            known = direct.get(id(p))
            direct[id(p)] = rows if known is None else known + rows
            origins[id(p)] = p, ids
    gradients = {id(p): direct.pop(id(p)) for p in group.leaves if id(p) in direct}
    for key, rows in direct.items():
        # Derived from leaves by operations without samples: pull back through their graph.
        derived, ids = origins[key]
        sources = [p for p in group.leaves if id(p) in ids]
        pulled = _pulled_back(derived, sources, rows)
        for p, g in zip(sources, pulled, strict=True):
            if g is not None:
                known = gradients.get(id(p))
                gradients[id(p)] = g if known is None else known + g
    count = part.stop - part.start
    return [
        gradients[id(p)] if id(p) in gradients else p.new_zeros(count, *p.shape)
        for p in group.leaves
    ]


def _pulled_back(derived: Tensor, sources: Sequence[Tensor], rows: Tensor) -> list[Tensor | None]:
    """Gradients of every sample in the sources of a tensor, (n, *shape) each; None if unused."""
    pull = partial(
        torch.autograd.grad,
        derived,
        sources,
        retain_graph=True,
        create_graph=torch.is_grad_enabled(),
        allow_unused=True,
    )
    if has_fixed_shape(rows):
        return list(pull(rows, is_grads_batched=True))
    # As in `each_sample`.
    pulled = zip(*map(pull, rows.unbind()), strict=True)
    return [None if own[0] is None else torch.stack(own) for own in pulled]
