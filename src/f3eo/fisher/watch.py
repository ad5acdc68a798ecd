"""When a measurement is checked against gradients of single samples."""

from operator import attrgetter
from typing import Any

from f3eo.closure.problem import Problem
from f3eo.closure.snapshot import all_modules

SHAPES = 64
"""Largest number of batch shapes that are remembered."""


class Watch:
    """Schedules the checks of layouts and of h.

    A check is due at measurements 1, 4, 16, … (4^k); when a module has changed its mode or its
    hooks; and when the 1st, 2nd, 4th, … (2^k) batch shape is met. It costs as much as three
    measurements of h (docs/performance.md).
    """

    def __init__(self) -> None:
        self.measured = 0
        """Measurements so far."""
        self._modules: tuple[Any, ...] | None = None
        self._shapes: set[Any] = set()

    def due(self, problem: Problem) -> bool:
        """Count this measurement, and tell whether a check is due."""
        self.measured += 1
        modules = module_states(problem)
        due = modules != self._modules or _is_power(self.measured, 4)
        self._modules = modules
        shapes = tuple(map(attrgetter("shape"), problem.tensors))
        if shapes not in self._shapes and len(self._shapes) < SHAPES:
            self._shapes.add(shapes)
            due = due or _is_power(len(self._shapes), 2)
        return due


def module_states(problem: Problem) -> tuple[Any, ...]:
    """What users change in modules between two steps: mode and number of hooks, per module."""
    return tuple(
        (
            m.training,
            len(m._forward_hooks),
            len(m._forward_pre_hooks),
            len(m._backward_hooks),
            len(m._backward_pre_hooks),
        )
        for m in all_modules(problem.model)
    )


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1
