"""When a check is made again of what was found on an earlier batch."""

from typing import Any

from f3eo.closure import batch as batches
from f3eo.closure.problem import Problem

SHAPES = 64
"""Kinds of batches that are told apart."""


class Watch:
    """Says when the layouts and h are to be compared with single samples.

    At the 1st, 4th, 16th, … measurement; when a module changes its mode or its hooks; and when the
    1st, 2nd, 4th, … kind of shapes is met. A check costs as much as three measurements of h
    (docs/performance.md).
    """

    def __init__(self) -> None:
        self.measured = 0
        self._surroundings: Any = None
        self._shapes: set[Any] = set()

    def due(self, problem: Problem) -> bool:
        """Whether this measurement is to be checked; counts it."""
        self.measured += 1
        now = surroundings(problem)
        changed, self._surroundings = now != self._surroundings, now
        shapes = tuple(t.shape for t in batches.tensors(problem.batch))
        new = shapes not in self._shapes and len(self._shapes) < SHAPES
        if new:
            self._shapes.add(shapes)
        return changed or _is_power(self.measured, 4) or (new and _is_power(len(self._shapes), 2))


def surroundings(problem: Problem) -> tuple[Any, ...]:
    """What a user can change at modules between two steps: modes and hooks."""
    modules = problem.model.modules() if problem.model is not None else ()
    return tuple(
        (
            m.training,
            len(m._forward_hooks),
            len(m._forward_pre_hooks),
            len(m._backward_hooks),
            len(m._backward_pre_hooks),
        )
        for m in modules
    )


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1
