"""The base of estimators whose h is a Hessian-vector product by an engine."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from f3eo.closure.problem import Problem
from f3eo.curvature import DoubleBackward, Engine, FiniteDifference, Objective
from f3eo.curvature.engine import Product
from f3eo.curvature.guard import Guard, NotRepeatable
from f3eo.fisher.estimator import Estimator


class ByEngine(Estimator):
    """An estimator with an engine, which double backward replaces where differences fail.

    Args:
        engine: computes H v; default `DoubleBackward()`.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine or DoubleBackward()
        self._guard = Guard(NotRepeatable, cure="")

    @property
    def forwards(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.forwards`."""
        replaced = isinstance(self.engine, FiniteDifference) and not self._guard.allows_differences
        return 3.0 + (DoubleBackward if replaced else self.engine).forwards

    def counters(self) -> Mapping[str, int]:
        """See `Estimator.counters`: batches on which differences failed."""
        return {"alarms": self._guard.alarms}

    def adopt(self, counters: Mapping[str, int]) -> None:
        """See `Estimator.adopt`."""
        self._guard.adopt(counters)

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """See `Estimator.forget`: whether differences serve."""
        self._guard.reset({"alarms": counters.get("alarms", 0)})

    def product(
        self,
        objectives: Sequence[Objective],
        coefficients: Sequence[float],
        problem: Problem,
        whole: Objective | None = None,
    ) -> Product:
        """H v by the engine, or by double backward where its differences fail.

        Args:
            objectives, coefficients, whole: see `Engine.product`.
            problem: closure, batch and parameters.

        Raises:
            RuntimeError: neither way gives H v; with the cure.
        """
        engine = self.engine
        arguments = objectives, coefficients, problem.parameters, problem.structured, whole
        if not isinstance(engine, FiniteDifference):
            return engine.product(*arguments)
        return self._guard.compute(
            lambda forced: engine.product(*arguments, trust_custom=forced),
            lambda: DoubleBackward().product(*arguments),
        )
