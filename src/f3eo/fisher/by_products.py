"""What estimators share whose h is a product of an engine."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from f3eo.curvature import DoubleBackward, Engine
from f3eo.curvature.guarded import Guarded
from f3eo.fisher.estimator import Estimator


class ByProducts(Estimator):
    """An estimator that remembers whether the differences of its engine serve.

    Args:
        engine: how products are computed; default `DoubleBackward()`.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine or DoubleBackward()
        self._products = Guarded(self.engine)

    @property
    def forwards(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.forwards`."""
        return 3.0 + self._products.engine.forwards

    def counters(self) -> Mapping[str, int]:
        """See `Estimator.counters`."""
        return self._products.counters()

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """See `Estimator.forget`: whether differences serve."""
        self._products.forget(counters)
