"""The interface of every importance: how much a task asks of each parameter."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.continual.by_parameter import ByParameter
from f3eo.optimizer.past import Data, Present
from f3eo.shown import Shown


class Importance(Shown, ABC):
    """Measures Ω_p >= 0 of every parameter p, elementwise, for the task that ends.

    `Elastic` asks for it at `consolidate`, and tells it of every step before.
    """

    reads_squares: bool = False
    """Whether it reads `Gradients.squares`."""

    @abstractmethod
    def measure(
        self, model: nn.Module | Iterable[Tensor], closure: Closure | None, data: Data | None
    ) -> ByParameter:
        """Ω of the task that ends, and a new start for the next one.

        Args:
            model, closure, data: see `Past.consolidate`.
        """

    def before(self, present: Present) -> None:
        """Called at every step before the base has stepped; default nothing."""

    def after(self, present: Present) -> None:
        """Called when it has stepped; default nothing."""

    def observe(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """Called before every step of a loop without F3EO; default nothing.

        Args:
            parameters: θ before the step.
            gradients: of the task's loss in each, uphill; None where it is not reached.
        """

    def state_dict(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """See `Past.state_dict`; default nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        """See `Past.load_state_dict`; default nothing."""
