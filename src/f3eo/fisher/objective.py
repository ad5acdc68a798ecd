"""Scalars of one evaluation of the closure, which can be had again as if it were the first time."""

from collections.abc import Callable

from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.closure.replay import Replay
from f3eo.curvature.passes import Recorded
from f3eo.decompositions import Decomposed


class Scalars:
    """An `Objective`: what a function makes of the closure's losses.

    In a mode a compiled model runs as it is written, so that what it does is seen.

    Args:
        function: of what the closure gave.
        problem: closure, batch and parameters.
        per_sample: see `evaluate`.
    """

    def __init__(
        self, function: Callable[[Output], list[Tensor]], problem: Problem, *, per_sample: bool
    ) -> None:
        def evaluated(differentiable: bool, mode: Decomposed | None) -> list[Tensor]:
            # No method: the replay would hold what holds it, and the step's tensors with it.
            return function(
                evaluate(
                    problem,
                    per_sample=per_sample,
                    differentiable=differentiable,
                    mode=mode,
                )
            )

        self._per_sample = per_sample
        self._replay = Replay(evaluated, problem)

    def __call__(
        self, *, differentiable: bool = True, mode: Decomposed | None = None
    ) -> list[Tensor]:
        """See `Objective`."""
        found = self._replay(differentiable, mode)
        if isinstance(mode, Recorded):
            self._replay.generators |= mode.generators
        return found

    def drawn(self) -> bool:
        """Whether random numbers have been drawn since the first call, but from the user's own."""
        return self._replay.random_changed()

    def rerun(self, function: Callable[[Output], list[Tensor]], problem: Problem) -> list[Tensor]:
        """Another function of another batch, differentiated once, in the same surroundings.

        Args:
            function, problem: see there.
        """

        def evaluated() -> list[Tensor]:
            return function(evaluate(problem, per_sample=self._per_sample, differentiable=False))

        return self._replay.rerun(evaluated)
