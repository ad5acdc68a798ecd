"""Kinds of measurement that share a recording: by shape, or for many lengths of the samples."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from f3eo.closure import batch
from f3eo.closure.problem import Problem
from f3eo.fisher.graph import Graph
from f3eo.fisher.lengths import SMALLEST, Places, Sizes, varying

REMEMBERED = 4096
"""Largest number of sizes for which it is remembered whether a recording holds."""


class Kind(NamedTuple):
    """What a recording depends on.

    Args:
        exact: all of it.
        alike: all but the lengths of samples, as `sizes` has them.
        sizes: of the batch.
    """

    exact: Any
    alike: Any
    sizes: Sizes


@dataclass
class Recording:
    """How measurements of one kind are run.

    Args:
        graph: None if the estimator itself measures.
        uses: how often it has been used.
    """

    graph: Graph | None
    uses: int = 0
    _admitted: dict[Sizes, bool] = field(default_factory=dict)

    def admits(self, sizes: Sizes) -> bool:
        """Whether it holds for a batch of these sizes, if it was recorded for many."""
        known = self._admitted.get(sizes)
        if known is None:
            if len(self._admitted) == REMEMBERED:
                self._admitted.clear()
            known = self._admitted[sizes] = self.graph is not None and self.graph.admits(sizes)
        return known


@dataclass
class Alike:
    """Kinds that differ in the lengths of samples alone.

    Args:
        first: sizes of the first batch that was met.
        places: where sizes have varied.
        recordings: for many lengths; none holds for all where the estimator takes another way.
        possible: whether a recording can hold for many lengths, as far as is known.
    """

    first: Sizes
    places: Places = frozenset()
    recordings: list[Recording] = field(default_factory=list)
    possible: bool = True

    def find(self, sizes: Sizes) -> Recording | None:
        """The recording that holds for a batch of these sizes."""
        return next((r for r in self.recordings if r.admits(sizes)), None)

    def meet(self, sizes: Sizes, most: int) -> Places:
        """Where sizes become symbols in a recording that is due; empty where none is.

        Args:
            sizes: of a batch for which there is no recording.
            most: largest number of recordings.
        """
        self.places |= varying(sizes, self.first)
        short = any(sizes[k][d] < SMALLEST for k, d in self.places)
        due = self.possible and not short and len(self.recordings) < most
        return self.places if due else frozenset()


def kind_of(problem: Problem, *rest: Any) -> Kind:
    """The kind of a measurement.

    Args:
        problem: closure, batch and parameters.
        rest: what else a recording depends on.
    """
    parameters = tuple((id(p), p.shape, p.dtype, p.device) for p in problem.parameters)
    modules = problem.model.modules() if problem.model is not None else ()
    device = problem.parameters[0].device.type
    tensors = batch.tensors(problem.batch)
    numbers = [id(t) for t in tensors]
    common = (
        problem.closure,
        tuple(numbers.index(n) for n in numbers),  # which tensors are the same one
        parameters,
        tuple(problem.structured),
        problem.squares,
        problem.factor,
        tuple(m.training for m in modules),
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        *rest,
    )
    return Kind(
        exact=(*common, batch.signature(problem.batch)),
        alike=(*common, batch.signature(problem.batch, lengths=False)),
        sizes=tuple([tuple(t.shape) for t in tensors]),
    )
