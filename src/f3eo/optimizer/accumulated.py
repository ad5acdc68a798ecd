"""Gradients that `accumulate` has put into .grad, and what the user did to them there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.problem import Closure, Problem
from f3eo.closure.snapshot import Snapshot
from f3eo.closure.unwrapped import unwrapped
from f3eo.optimizer.measured import Change, Measured
from f3eo.optimizer.parameters import Trained
from f3eo.tensors import fetched, is_sharded, norms, over_shards, own_part, wide

MARKS = 3
"""Numbers by which a gradient is recognised: norm, largest magnitude, sum."""


@dataclass(frozen=True)
class Accumulated:
    """The gradients of all micro-batches so far; g is the .grad of its parameters.

    Args:
        measured: gradients whose g is .grad itself, no copy.
        marks: the marks of every gradient when it was written.
        closure: the last one.
        batches: its arguments, one tuple a micro-batch; none where nobody asks for them.
        count: of micro-batches.
    """

    measured: Measured
    marks: list[Tensor]
    closure: Closure
    batches: tuple[tuple[Any, ...], ...] = ()
    count: int = 1

    @torch.no_grad()
    def read(self, trained: Trained) -> Measured | None:
        """The gradients as .grad holds them now; None if every .grad that there was is removed.

        A parameter whose own .grad was removed takes no part in the step.

        Args:
            trained: what a step trains now.

        Raises:
            RuntimeError: other parameters than at the time of the measurement.
        """
        measured = self.measured
        trained.check_same(measured.trained)
        before = measured.gradients.gradient
        now = [p.grad for p in trained.parameters]
        if all(g is None for g in now) and not measured.gradients.empty:
            return None
        pairs = [(g, b is not None) for g, b in zip(now, before, strict=True)]
        kept = [g is not None for g, had in pairs if had]
        new = [g for g, had in pairs if had and g is not None]
        old = fetched([mark for i, mark in enumerate(self.marks) if kept[i // MARKS]])
        unit = max((torch.finfo(g.dtype).eps for g in new), default=0.0)
        change = _change(old, fetched(_marks(new)), [g.numel() for g in new], unit)
        if any(g is not None and not had for g, had in pairs):
            change = replace(change, uniform=False)
        structure = measured.gradients.structure
        if structure is not None and not all(kept):
            own = [g for g, s in zip(now, trained.structured, strict=True) if s]
            rows = zip(structure, own, strict=True)
            structure = [torch.zeros_like(h) if g is None else h for h, g in rows]
        gradients = replace(measured.gradients, gradient=now, structure=structure)
        return replace(measured, gradients=gradients, change=change)


def write_gradients(
    measured: Measured,
    closure: Closure,
    batches: tuple[tuple[Any, ...], ...] = (),
    count: int = 1,
) -> Accumulated:
    """Put g into .grad, in the sign of the user's loss; None where nothing was measured."""
    gradients, trained = measured.gradients, measured.trained
    used = {_memory(h) for h in gradients.structure or ()}
    own: list[Tensor | None] = []
    for g in gradients.gradient:
        # A user may write into .grad: it must share its memory with no other tensor.
        if g is not None and (_memory(g) in used or 0 in g.stride()):
            g = g.clone(memory_format=torch.contiguous_format)
        used |= {_memory(g)} if g is not None else set()
        own.append(g)
    for p, g in zip(trained.parameters, own, strict=True):
        p.grad = g
    for p in trained.frozen:
        p.grad = None
    marks = _marks(g for g in own if g is not None)
    measured = replace(measured, gradients=replace(gradients, gradient=own))
    return Accumulated(measured, marks, closure, batches, count)


def call_without_losses(problem: Problem) -> None:
    """Call the closure that a wrapper (Lightning's) passes to `step`: it runs hooks.

    Raises:
        RuntimeError: it returns something, so what was accumulated is not meant.
    """
    snapshot = Snapshot(problem)
    with torch.enable_grad(), unwrapped():
        result = problem.closure(*problem.batch)
    if result is not None:
        snapshot.restore()
        raise RuntimeError(
            "step(closure) after accumulate(): call step() without arguments to use what was "
            "accumulated, or zero_grad() to drop it"
        )


def _memory(tensor: Tensor) -> int:
    return own_part(tensor).untyped_storage().data_ptr()


def _marks(gradients: Iterable[Tensor]) -> list[Tensor]:
    """Norm, largest magnitude and sum of every tensor: a common factor changes all alike."""
    wholes = [wide(g) for g in gradients]
    empty = torch.zeros(())
    rows = [
        (g.norm(), g.abs().amax(), g.sum()) if g.numel() else (empty,) * MARKS
        for g in map(own_part, wholes)
    ]
    if is_sharded(wholes):
        _, largest, sums = zip(*rows, strict=True)
        columns = (
            norms(wholes),
            over_shards(largest, wholes[0], largest=True),
            over_shards(sums, wholes[0]),
        )
        rows = list(zip(*columns, strict=True))
    return [mark for row in rows for mark in row]


def _change(
    old: Sequence[float], new: Sequence[float], sizes: Sequence[int], unit: float
) -> Change:
    """The factor between gradients, from their marks.

    Args:
        old, new: marks of every gradient before and after.
        sizes: their numbers of elements.
        unit: rounding unit of the gradients.
    """
    if old == new:
        return Change(1.0, uniform=True)
    length = sqrt(sum(x * x for x in old[::MARKS]))
    factor = sqrt(sum(x * x for x in new[::MARKS])) / length if length > 0 else 1.0
    if not isfinite(factor) or not all(map(isfinite, new)):
        return Change(factor, uniform=True)  # the step will be skipped for this reason
    if sum(a * b for a, b in zip(old[2::MARKS], new[2::MARKS], strict=True)) < 0:
        factor = -factor
    slack = max(2 * unit, 1e-5 if unit > 1e-10 else 1e-12)
    factors = abs(factor), abs(factor), factor  # of norm, magnitude and sum

    def scaled_by_factor(i: int, size: int) -> bool:
        rows = zip(old[i : i + MARKS], new[i : i + MARKS], factors, strict=True)
        norm, largest, total = (abs(b - f * a) for a, b, f in rows)
        allowed = slack * abs(factor) * old[i]
        return max(norm, largest, total / sqrt(size)) <= allowed if size else True

    uniform = all(scaled_by_factor(MARKS * i, size) for i, size in enumerate(sizes))
    return Change(factor if uniform else abs(factor), uniform)
