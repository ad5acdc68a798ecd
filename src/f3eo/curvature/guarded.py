"""An engine's products, and those of double backward where finite differences are none."""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from f3eo.curvature.double_backward import DoubleBackward
from f3eo.curvature.engine import Engine, Objective, Product
from f3eo.curvature.finite_difference import FiniteDifference
from f3eo.curvature.guard import Differs, NotRepeatable, no_second_derivative

logger = logging.getLogger("f3eo")

PATIENCE = 3
"""InnerProducts in which differences did not serve, before none are taken any more."""


class Guarded:
    """Remembers whether differences serve.

    Args:
        engine: computes the products.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._exact = DoubleBackward()
        self.forget()

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Find anew whether differences serve.

        Args:
            counters: what `counters` once gave; default none.
        """
        self._alarms = counters.get("alarms", 0)
        self._obstacle: str | None = None
        self._once_only = False  # the closure is known to have no second derivative
        self._told: set[str] = set()

    def counters(self) -> Mapping[str, int]:
        """How often differences did not serve."""
        return {"alarms": self._alarms}

    @property
    def engine(self) -> Engine:
        """The engine of the next product."""
        differs = isinstance(self._engine, FiniteDifference)
        barred = self._obstacle is not None or self._alarms >= PATIENCE
        return self._exact if differs and barred else self._engine

    def product(
        self,
        objectives: Sequence[Objective],
        weights: Sequence[float],
        parameters: Sequence[Tensor],
        structured: Sequence[bool],
        whole: Objective | None = None,
    ) -> Product:
        """See `Engine.product`.

        Raises:
            RuntimeError: neither differences nor double backward give one; with the cure.
        """
        arguments = objectives, weights, parameters, structured, whole
        engine = self.engine
        if not isinstance(engine, FiniteDifference):
            return engine.product(*arguments)
        try:
            return engine.product(*arguments, trusting=self._once_only)
        except NotRepeatable as reason:
            self._obstacle = cause = str(reason)
        except Differs as reason:
            self._alarms += 1
            cause = str(reason)
        self._tell("h by double backward instead of finite differences: %s", cause)
        try:
            return self._exact.product(*arguments)
        except (RuntimeError, NotImplementedError) as error:
            if not no_second_derivative(error):
                raise
            failure = error
        if self._obstacle is not None and not self._once_only:
            self._obstacle, self._once_only = None, True
            self._tell("h by finite differences after all: there is no second derivative: %s", "")
            try:
                return engine.product(*arguments, trusting=True)
            except (NotRepeatable, Differs) as reason:
                cause = str(reason)
        raise RuntimeError(
            f"h cannot be had by finite differences ({cause}) nor by double backward ({failure}): "
            f"use operations that have second derivatives"
        ) from failure

    def _tell(self, what: str, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            logger.warning(what, reason)
