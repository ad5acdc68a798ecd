"""An estimator that runs another one in a way of its own."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from f3eo.fisher.estimator import Estimator
from f3eo.fisher.per_sample import PerSample


class Around(Estimator):
    """Has the quantity, the counters and the cost of the estimator inside.

    Args:
        estimator: which it runs.
    """

    def __init__(self, estimator: PerSample) -> None:
        self.estimator = estimator

    @property
    def forwards(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.forwards`."""
        return self.estimator.forwards

    @property
    def power(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.power`."""
        return self.estimator.power

    @property
    def relative(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.relative`."""
        return self.estimator.relative

    def size(self, parameters: Sequence[Tensor]) -> int:
        """See `Estimator.size`."""
        return self.estimator.size(parameters)

    def counters(self) -> Mapping[str, int]:
        """See `Estimator.counters`."""
        return self.estimator.counters()

    def adopt(self, counters: Mapping[str, int]) -> None:
        """See `Estimator.adopt`."""
        self.estimator.adopt(counters)

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """See `Estimator.forget`."""
        self.estimator.forget(counters)
