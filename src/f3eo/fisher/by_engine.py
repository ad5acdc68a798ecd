"""The base of estimators whose h is a Hessian-vector product by an engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from torch import Tensor

from f3eo.closure.problem import Problem
from f3eo.curvature import DoubleBackward, Engine, FiniteDifference, Objective
from f3eo.curvature.engine import Product
from f3eo.curvature.guard import Guard, NotRepeatable
from f3eo.decompositions import Decomposed
from f3eo.fisher.estimator import Estimator
from f3eo.tensors import over


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
        engine, scale = self.engine, problem.scale
        if scale is not None:
            objectives = [_Scaled(o, problem) for o in objectives]
            whole = None if whole is None else _Scaled(whole, problem)
        arguments = objectives, coefficients, problem.parameters, problem.structured, whole
        if not isinstance(engine, FiniteDifference):
            return _over(engine.product(*arguments), problem.factor)
        product = self._guard.compute(
            lambda forced: engine.product(*arguments, trust_custom=forced),
            lambda: DoubleBackward().product(*arguments),
        )
        return _over(product, problem.factor)


@dataclass(frozen=True)
class _Scaled:
    """S f_k in place of f_k, S that of float16 (`f3eo.closure.loss_scale`)."""

    objective: Objective
    problem: Problem

    def __call__(
        self, *, differentiable: bool = True, mode: Decomposed | None = None
    ) -> list[Tensor]:
        values = self.objective(differentiable=differentiable, mode=mode)
        factor = self.problem.factor
        return values if factor == 1 else [value * factor for value in values]


def _over(product: Product, factor: float) -> Product:
    """The product of f_k from that of S f_k: H v is S² times as large."""
    if factor == 1:
        return product
    return replace(
        product,
        values=over(product.values, factor),
        gradients=[over(gradient, factor) for gradient in product.gradients],
        vector=over(product.vector, factor),
        product=over(product.product, factor**2),
    )
