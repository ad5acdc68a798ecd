"""Scalars of the closure's losses that can be evaluated again as if for the first time."""

from collections.abc import Callable

from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.closure.replay import Replay
from f3eo.curvature.passes import RecordCuts
from f3eo.decompositions import Decomposed


class Scalars:
    """The scalars that a function computes from the closure's losses; an `Objective`.

    In a mode a compiled model runs uncompiled, so that the mode sees its operations.

    Args:
        function: computes the scalars from what the closure returned.
        problem: closure, batch and parameters.
        per_sample: see `evaluate`.
    """

    def __init__(
        self, function: Callable[[Output], list[Tensor]], problem: Problem, *, per_sample: bool
    ) -> None:
        def evaluated(differentiable: bool, mode: Decomposed | None) -> list[Tensor]:
            # A function, no method: with a method the replay would be part of a reference cycle
            # that keeps the tensors of the step alive.
            return function(
                evaluate(problem, per_sample=per_sample, differentiable=differentiable, mode=mode)
            )

        self._per_sample = per_sample
        self._replay = Replay(evaluated, problem)

    def __call__(
        self, *, differentiable: bool = True, mode: Decomposed | None = None
    ) -> list[Tensor]:
        """See `Objective`."""
        scalars = self._replay(differentiable, mode)
        if isinstance(mode, RecordCuts):
            self._replay.generators |= mode.generators
        return scalars

    def drew(self) -> bool:
        """Whether random numbers were drawn since the first call, except from user generators."""
        return self._replay.random_changed()

    def in_same_surroundings(
        self, function: Callable[[Output], list[Tensor]], problem: Problem
    ) -> list[Tensor]:
        """The scalars of another function and batch, differentiable once.

        Args:
            function: computes the scalars from what the closure returned.
            problem: closure, batch and parameters.
        """

        def evaluated() -> list[Tensor]:
            return function(evaluate(problem, per_sample=self._per_sample, differentiable=False))

        return self._replay.rerun(evaluated)
