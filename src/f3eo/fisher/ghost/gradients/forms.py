"""What else per-sample gradients add up to: a form of the G_i of every leaf, not differentiable.

Closed where the terms have one (`Term.squares`, `Term.products`); elsewhere gradients are written
out, a slice of samples at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.closure.problem import Problem
from f3eo.fisher.ghost.gradients.contribution import Group, grouped, leaf_gradients, slices
from f3eo.fisher.ghost.gradients.per_use import per_use_gradients
from f3eo.fisher.ghost.gradients.terms import Dense, Term
from f3eo.fisher.ghost.recording.layout import Layout
from f3eo.fisher.ghost.recording.recording import Recording


class Form(ABC):
    """A function of the per-sample gradients G_i of one leaf."""

    @abstractmethod
    def of(self, term: Term, leaf: Tensor) -> Tensor | None:
        """The form in closed form; None where the gradients must be written out."""

    @abstractmethod
    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The form over all samples, from those of slices in order."""

    @abstractmethod
    def not_finite(self, leaf: Tensor, samples: int) -> Tensor:
        """NaN in its shape."""


@dataclass(frozen=True)
class Squares(Form):
    """Σ_i G_i ∘ G_i, in the leaf's shape."""

    def of(self, term: Term, leaf: Tensor) -> Tensor | None:
        """See `Form.of`."""
        return term.squares()

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """See `Form.joined`."""
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def not_finite(self, leaf: Tensor, samples: int) -> Tensor:
        """See `Form.not_finite`."""
        return torch.full_like(leaf, torch.nan)


@dataclass(frozen=True)
class Products(Form):
    """⟨G_i, v⟩ for every sample, (N,).

    Args:
        vectors: v by the id of its leaf, in the leaf's shape.
    """

    vectors: Mapping[int, Tensor]

    def of(self, term: Term, leaf: Tensor) -> Tensor | None:
        """See `Form.of`."""
        return term.products(self.vectors[id(leaf)])

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """See `Form.joined`."""
        return torch.cat(list(parts))

    def not_finite(self, leaf: Tensor, samples: int) -> Tensor:
        """See `Form.not_finite`."""
        return leaf.new_full((samples,), torch.nan)


@torch.no_grad()
def forms(
    form: Form,
    recording: Recording,
    layouts: Sequence[Sequence[Layout]],
    deltas: Sequence[Tensor | None],
    problem: Problem,
    memory: int,
) -> dict[int, Tensor]:
    """The form of every structured leaf that contributes, by the leaf's id.

    Args:
        form: `Squares()` or `Products(vectors)`.
        recording, layouts, deltas, problem, memory: see `norms`.
    """
    losses, leaves, structured = recording.output.losses, problem.parameters, problem.structured
    contributions = per_use_gradients(recording.uses, layouts, deltas, losses, attached=False)
    counted = {id(p) for p, s in zip(leaves, structured, strict=True) if s}
    found: dict[int, Tensor] = {}
    for group in grouped(contributions, leaves):
        own = [p for p in group.leaves if id(p) in counted]
        term = group.joined()
        closed = None if term is None or not own else form.of(term, own[0])
        if closed is not None:
            found[id(own[0])] = closed
        elif own:
            found |= _written_out(form, group, own, len(losses), memory)
    return found


def _written_out(
    form: Form, group: Group, own: Sequence[Tensor], samples: int, memory: int
) -> dict[int, Tensor]:
    """The form of these leaves of a group, a slice of samples at a time."""
    inputs = [t for c in group.contributions for t in c.inputs]
    parts: dict[int, list[Tensor]] = {id(p): [] for p in own}
    for part in slices(group, samples, memory):
        rows = leaf_gradients(group, part, iter(inputs))
        for p, gradients in zip(group.leaves, rows, strict=True):
            if id(p) in parts:
                value = form.of(Dense(gradients), p)
                assert value is not None  # those of gradients written out are closed
                parts[id(p)].append(value)
    return {key: form.joined(values) for key, values in parts.items()}
