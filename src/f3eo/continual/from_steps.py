"""Importance by the squares of single gradients that steps of F3EO have made anyway."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.continual.by_parameter import ByParameter, by_parameter, listed
from f3eo.continual.importance import Importance
from f3eo.optimizer.past import Data, Present


class FromSteps(Importance):
    """Ω = the mean over the measured steps t of a task of Σ_i ω_i ∇ℓ_i(θ_t) ∘ ∇ℓ_i(θ_t).

    F3EO has the gradients of single samples at every step that measures h; their squares cost one
    more matrix product a layer, and `consolidate` no pass over data. It is `Exact` along the way to
    θ* in place of at θ*. Only the structured parameters get an importance.
    """

    reads_squares = True

    def __init__(self) -> None:
        self._sums = ByParameter()
        self._steps = 0

    def after(self, present: Present) -> None:
        """See `Importance.after`."""
        squares = present.gradients.squares
        if squares is None:
            return
        chosen = [p for p, s in zip(present.parameters, present.structured, strict=True) if s]
        for p, square in zip(chosen, squares, strict=True):
            if p in self._sums:
                self._sums[p].add_(square)
            else:
                self._sums[p] = square.clone()
        self._steps += 1

    def measure(
        self, model: nn.Module | Iterable[Tensor], closure: Closure | None, data: Data | None
    ) -> ByParameter:
        """See `Importance.measure`; closure and data are not used.

        Raises:
            ValueError: no step has measured the structure term since the last task.
        """
        if not self._steps:
            raise ValueError(
                "FromSteps has seen no step that measures the structure term since the last "
                "consolidate(): it needs F3EO(..., past=Elastic(FromSteps(), …)) with a strength "
                "above 0 and at least `every` steps a task; elsewhere use Exact()"
            )
        found = {p: total / self._steps for p, total in self._sums.items()}
        self._sums, self._steps = ByParameter(), 0
        return found

    def state_dict(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """See `Importance.state_dict`."""
        return {"sums": listed(self._sums, parameters), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        """See `Importance.load_state_dict`."""
        self._sums, self._steps = by_parameter(state["sums"], parameters), state["steps"]
