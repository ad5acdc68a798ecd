"""The parts that join a step: as the user gives them, in a step, and in the state."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten

from f3eo.fisher import Estimator
from f3eo.optimizer.measured import Change, Measured
from f3eo.optimizer.past import Joined, Past, Present
from f3eo.tensors import scaled

MEASURED_APART = (
    "a part of `past` holds other numbers on another process, which would pull their parameters "
    "apart: give consolidate(closure, data) the same data on all of them"
)


def check_past(past: Any, estimator: Estimator) -> Past | tuple[Past, ...]:
    """The parts as they are, a sequence as a tuple.

    Raises:
        TypeError: something that is no part.
        ValueError: a part reads squares that the estimator does not measure, or parameters are
            sharded.
    """
    parts = parts_of(past) if isinstance(past, (Past, list, tuple)) else (past,)
    for part in parts:
        if not isinstance(part, Past):
            raise TypeError(
                f"past must be a part or a sequence of them: Rehearsal(Reservoir(500)), "
                f"Elastic(Exact(), 100.0) of f3eo.continual, received {part!r}"
            )
        if estimator.sharded:
            raise ValueError(
                f"{part!r} needs whole parameters, received {estimator!r}: train with "
                f"DistributedDataParallel in place of fully_shard, or leave past out"
            )
        if part.reads_squares and not estimator.measures_squares:
            raise ValueError(
                f"{part!r} reads the squares of single gradients, which {estimator!r} does not "
                f"measure: use PerSample(), or the importance Exact()"
            )
    return past if isinstance(past, Past) else parts


def parts_of(past: Past | Sequence[Past]) -> tuple[Past, ...]:
    """All parts."""
    return (past,) if isinstance(past, Past) else tuple(past)


def join(past: Past | Sequence[Past], present: Present, measured: Measured) -> Measured:
    """What the step descends; the measurement itself where no part adds to it.

    Args:
        past: the parts.
        present: the batch, of `present_of`.
        measured: the same, as it was measured.
    """
    start = joined = Joined(present.gradients)
    for part in parts_of(past):
        joined = part.join(present, joined)
    if joined is start:
        return measured
    change = Change(1.0, uniform=False)  # no factor on the batch explains what has joined
    own = present.gradients.loss
    return replace(measured, gradients=joined.gradients, change=change, own=own, held=joined.held)


def present_of(measured: Measured, batches: Sequence[tuple[Any, ...]], measure: Any) -> Present:
    """The batch of a step, for its parts.

    Args:
        measured: as the estimator measured it.
        batches: the closure's arguments, one tuple a micro-batch.
        measure: see `Present`.
    """
    gradients, factor, trained = measured.gradients, measured.change.factor, measured.trained
    if gradients.structure is not None and factor != 1:
        gradients = replace(gradients, structure=scaled(gradients.structure, factor))
    own = trained.parameters, trained.structured, trained.signs, trained.learning_rates
    return Present(batches, gradients, *own, measure=measure)


def states_of(past: Past | Sequence[Past], parameters: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Kind and state of every part."""
    return [
        {"kind": type(part).__name__, "state": part.state_dict(parameters)}
        for part in parts_of(past)
    ]


def tensors_held(past: Past | Sequence[Past], parameters: Sequence[Tensor]) -> list[Tensor]:
    """All tensors in the states of the parts that keep no samples."""
    kept = [part for part in parts_of(past) if not part.keeps_samples]
    leaves, _ = tree_flatten([part.state_dict(parameters) for part in kept])
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def load_states(
    past: Past | Sequence[Past],
    states: Sequence[dict[str, Any]],
    parameters: Sequence[Tensor],
) -> None:
    """Every part continues; a warning says so where the state is of other parts."""
    parts = parts_of(past)
    kinds, saved = [type(part).__name__ for part in parts], [s["kind"] for s in states]
    if kinds != saved:
        warnings.warn(
            f"the state dict has a past of {saved}, and this optimizer one of {kinds}: it goes on "
            f"with what its parts hold now; to resume a run give it the parts of that run (and "
            f"save with torch.save: torch.distributed.checkpoint does not carry them)",
            stacklevel=2,
        )
        return
    for part, state in zip(parts, states, strict=True):
        part.load_state_dict(state["state"], parameters)
