"""What `accumulate` has gathered, lying in .grad, and what was done to it there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt

import torch
from torch import Tensor

from f3eo.closure.snapshot import Snapshot
from f3eo.fisher import Gradients
from f3eo.optimizer.parameters import Trained
from f3eo.tensors import fetched, scaled, wide


@dataclass(frozen=True)
class Settled:
    """What was accumulated, once nothing more is done to .grad.

    Args:
        gradients: ∇L as .grad has it, h as it was measured.
        snapshot: as before the first micro-batch.
        factor: on h, as on ∇L: what all of that was multiplied with, as by `clip_grad_norm_`, else
            the ratio of its norms.
        common: whether that factor says all that was done.
    """

    gradients: Gradients
    snapshot: Snapshot
    factor: float
    common: bool

    def applied(self) -> Gradients:
        """With the factor on h."""
        structure = self.gradients.structure
        if structure is None or self.factor == 1:
            return self.gradients
        return replace(self.gradients, structure=scaled(structure, self.factor))


@dataclass(frozen=True)
class Accumulated:
    """Gradients whose ∇L is the .grad of its parameters until the step.

    Args:
        gradients: of all micro-batches together; `gradient` is .grad itself, no copy.
        snapshot: as before the first of them.
        trained: the parameters they belong to.
        marks: what ∇L is known by, see `_marks`.
    """

    gradients: Gradients
    snapshot: Snapshot
    trained: Trained
    marks: list[Tensor]

    def settled(self) -> Settled | None:
        """The gradients with what was done to .grad; None if every .grad was taken away.

        A parameter whose own .grad was taken away takes no part in the step.
        """
        before = self.gradients.gradient
        now = [p.grad for p in self.trained.parameters]
        if all(g is None for g in now):
            return None
        pairs = [(g, b is not None) for g, b in zip(now, before, strict=True)]
        kept = [g is not None for g, known in pairs if known]
        new = [g for g, known in pairs if known and g is not None]
        old = fetched([m for i, m in enumerate(self.marks) if kept[i // 3]])
        eps = max((torch.finfo(g.dtype).eps for g in new), default=0.0)
        factor, common = _factor(old, fetched(_marks(new)), [g.numel() for g in new], eps)
        common = common and not any(g is not None and not known for g, known in pairs)
        structure = self.gradients.structure
        if structure is not None and not all(kept):
            own = [g for g, s in zip(now, self.trained.inside, strict=True) if s]
            rows = zip(structure, own, strict=True)
            structure = [torch.zeros_like(h) if g is None else h for h, g in rows]
        gradients = replace(self.gradients, gradient=now, structure=structure)
        return Settled(gradients, self.snapshot, factor, common)


def handed_out(gradients: Gradients, snapshot: Snapshot, trained: Trained) -> Accumulated:
    """Put ∇L into .grad, in the sign of the user's loss; what was not measured has none."""
    used = {_memory(h) for h in gradients.structure or ()}
    own: list[Tensor | None] = []
    for g in gradients.gradient:
        # What is written into .grad must reach no other tensor, nor twice the same.
        if g is not None and (_memory(g) in used or 0 in g.stride()):
            g = g.clone(memory_format=torch.contiguous_format)
        used |= {_memory(g)} if g is not None else set()
        own.append(g)
    for p, g in zip(trained.parameters, own, strict=True):
        p.grad = g
    for p in trained.others:
        p.grad = None
    marks = _marks(g for g in own if g is not None)
    return Accumulated(replace(gradients, gradient=own), snapshot, trained, marks)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _marks(gradients: Iterable[Tensor]) -> list[Tensor]:
    """Norm, largest magnitude and sum of every tensor: with a factor they change by the same."""
    empty = torch.zeros(())
    rows = (
        (g.norm(), g.abs().amax(), g.sum()) if g.numel() else (empty,) * 3
        for g in map(wide, gradients)
    )
    return [mark for row in rows for mark in row]


def _factor(
    old: Sequence[float], new: Sequence[float], sizes: Sequence[int], eps: float
) -> tuple[float, bool]:
    """f of g_new = f·g_old, from the marks of both, and whether it is one for all tensors.

    Args:
        old, new: marks.
        sizes: numbers of elements.
        eps: rounding unit of the gradients.
    """
    if old == new:
        return 1.0, True
    length = sqrt(sum(x * x for x in old[::3]))
    factor = sqrt(sum(x * x for x in new[::3])) / length if length > 0 else 1.0
    if not isfinite(factor) or not all(map(isfinite, new)):
        return factor, True  # the step is skipped, and says why
    if sum(a * b for a, b in zip(old[2::3], new[2::3], strict=True)) < 0:
        factor = -factor
    slack = max(2 * eps, 1e-5 if eps > 1e-10 else 1e-12)

    def close(i: int, size: int) -> bool:
        rows = zip(old[i : i + 3], new[i : i + 3], signs, strict=True)
        norm, largest, total = (abs(b - f * a) for a, b, f in rows)
        allowed = slack * abs(factor) * old[i]
        return max(norm, largest, total / sqrt(size)) <= allowed if size else True

    signs = abs(factor), abs(factor), factor
    common = all(close(3 * i, size) for i, size in enumerate(sizes))
    return (factor if common else abs(factor)), common
