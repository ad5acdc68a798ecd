"""The two passes of a sharded model, each an ordinary forward and an ordinary backward pass.

Process r of N has B_r samples with weights w_i, W_r = Σ w_i and ω_i = w_i/W_r of its own, and
W = Σ_r W_r. `fully_shard` gives the mean over processes of what each differentiates, so each takes

    κ_r Σ_i ω_i ℓ_i      with κ_r = N W_r/W

whose mean over processes is L. Gradients of single samples need no other process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from f3eo.closure.graph import contents
from f3eo.closure.output import Shares
from f3eo.closure.problem import Problem
from f3eo.closure.residuals import outputs_of
from f3eo.curvature.guard import NotRepeatable, custom
from f3eo.fisher import PerSample
from f3eo.fisher.ghost.gradients.kept import KeptGradients, keep
from f3eo.fisher.ghost.layouts import Known, Layouts
from f3eo.fisher.ghost.recording.layout import Layout
from f3eo.fisher.ghost.recording.recording import Recording
from f3eo.fisher.ghost.rules import convolution, embedding, linear, normalisation
from f3eo.fisher.ghost.second_pass.tape import Tape, tape_of
from f3eo.fisher.metric import Diagonals
from f3eo.integrations.fsdp.units import Units

BY_SHAPE = {rules.__name__ for rules in (convolution, embedding, linear, normalisation)}
"""Modules of the layer rules that read no value of a parameter."""


@dataclass(frozen=True)
class Together:
    """What the samples of this process count among those of all.

    Args:
        shares: ω_i.
        scale: κ_r, 1 where it is 0.
        part: W_r/W.
        weight: W.
    """

    shares: Shares
    scale: Tensor
    part: Tensor
    weight: float

    @classmethod
    def of(cls, shares: Shares, losses: Tensor, units: Units) -> "Together":
        """From the samples of this process; one sum over all processes."""
        own = torch.as_tensor(shares.total, dtype=torch.float64, device=losses.device)
        total = units.sums(own)
        part = torch.where(total > 0, own / total, 0)
        scale = torch.where(part > 0, part * units.count, 1)
        return cls(shares, scale, part, float(total))

    @property
    def total(self) -> Any:
        """W, a number; an integer where samples have no weights."""
        return int(self.weight) if self.shares.weights is None else self.weight

    def cotangent(self, losses: Tensor) -> Tensor:
        """κ_r ω_i, (B_r,)."""
        return self.shares.as_tensor(losses, self.scale)

    def mean(self, values: Tensor) -> Tensor:
        """What the samples of this process add to Σ_r (W_r/W) Σ_i ω_i x_i, in float64."""
        values = values.detach().double()
        return torch.where(self.part > 0, self.part * self.shares.mean_or_zero(values), 0)


@dataclass(frozen=True)
class First:
    """What the second pass needs of the first.

    Args:
        losses: ℓ_i, detached.
        together: ω_i, κ_r, W_r/W.
        gradient: ∇L, a DTensor per parameter, None where the loss does not depend on it.
        kept: norms and moves of κ_r ω_i ℓ_i; None where gradients are not finite.
        tape: what the second pass replays.
        residuals: κ_r Σ_i ω_i ∂ℓ_i/∂f at every edge of f; None where they are not held.
    """

    losses: Tensor
    together: Together
    gradient: list[Tensor | None]
    kept: KeptGradients | None
    tape: Tape
    residuals: list[Tensor] | None


class AgreedLayouts(Layouts):
    """Layouts for which all processes probe single samples equally often.

    Args:
        units: of the sharded model.
        options: see `Layouts`.
    """

    def __init__(self, units: Units, *args: Any, **options: Any) -> None:
        self._units = units
        super().__init__(*args, **options)

    def _agreed(self, wanted: bool) -> bool:
        return self._units.any(wanted)

    def _verify(self, layouts: list[list[Layout]]) -> None:
        with self._units.gathered(_read(self._recording)):
            super()._verify(layouts)


def first_pass(
    recording: Recording,
    units: Units,
    problem: Problem,
    inner: Problem,
    estimator: PerSample,
    diagonals: Diagonals,
    known: Known,
    *,
    check: bool,
) -> First:
    """Differentiate a recorded pass, on all processes.

    Args:
        recording: the pass.
        units: of the sharded model.
        problem, inner: the problem in DTensors, and in whole parameters.
        estimator: gives `memory` and whether residuals are held.
        diagonals: D, by the ids of the whole parameters.
        known: see `Layouts`.
        check: whether single samples are probed.

    Raises:
        NotRepeatable: why no second pass is possible.
        ValueError, RuntimeError: see `Ghost.norms`.
    """
    losses = recording.output.losses
    together = Together.of(recording.output.shares, losses, units)
    recording.refuse_replay()
    if check and (names := contents(losses).custom):
        raise custom(names)
    layouts = AgreedLayouts(units, recording, inner, estimator.memory, known, check=check)
    retain = units.any(bool(recording.deriving) or not layouts.complete)
    outputs = outputs_of(losses) if estimator.hold_residuals else None
    edges = recording.edges
    found, gradient = backward(
        [losses], [together.cotangent(losses)], problem, [*edges, *(outputs or [])], retain=retain
    )
    deltas, held = found[: len(edges)], found[len(edges) :]
    unit = recording.unit(deltas)
    places = layouts.find(deltas)
    tape, kept = tape_of(recording, places), None
    if places is not None:
        own = estimator.memory
        error = None
        with units.gathered(_read(recording)):
            try:
                arguments = deltas, inner, own, unit, diagonals
                kept = keep(recording, places, *arguments, summed=False)
                if kept is None:
                    raise NotRepeatable(
                        f"per-sample gradients take more than memory={own} bytes; a smaller "
                        f"batch (chunk=) or more memory would do"
                    )
            except Exception as raised:
                error = raised
        units.refuse_together(error)
    residuals = None if outputs is None else [r for r in held if r is not None]
    if residuals is not None and len(residuals) < len(held):
        raise NotRepeatable("outputs that the losses do not depend on stand in the graph")
    return First(losses.detach(), together, gradient, kept, tape, residuals)


def backward(
    roots: Sequence[Any],
    along: Sequence[Tensor],
    problem: Problem,
    edges: Sequence[GradientEdge] = (),
    *,
    retain: bool = False,
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """An ordinary backward pass, so that gathering and reducing are those of `fully_shard`.

    Args:
        roots: tensors or edges.
        along: a cotangent of each.
        problem: in DTensors; their .grad is taken and left empty.
        edges: places in the graph.
        retain: whether the graph is kept.

    Returns:
        the gradients of this process at the edges, and the means over processes of the gradients in
        the parameters; None where there is none.
    """
    found: list[Tensor | None] = [None] * len(edges)

    def take(place: int, output: int, gradients: Sequence[Tensor | None]) -> None:
        found[place] = gradients[output]

    handles = []
    for place, edge in enumerate(edges):
        node: Any = edge.node
        handles.append(node.register_prehook(partial(take, place, edge.output_nr)))
    try:
        torch.autograd.backward(list(roots), list(along), retain_graph=retain)  # pyright: ignore
    finally:
        for handle in handles:
            handle.remove()
    gradient = [p.grad for p in problem.parameters]
    for p in problem.parameters:
        p.grad = None
    return found, gradient


def _read(recording: Recording) -> set[int]:
    """Ids of the parameters whose values per-sample gradients need, beside their shapes.

    These are the parameters of sums and products, those without a rule, and those that another
    tensor is computed from.
    """
    ids: set[int] = set()
    for use in recording.uses:
        for p, sources in zip(use.parameters, use.sources, strict=True):
            by_shape = use.rule is not None and use.rule.__module__ in BY_SHAPE
            if not by_shape or id(p) not in sources:
                ids |= sources
    return ids
