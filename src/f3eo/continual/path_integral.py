"""Importance by what each parameter has contributed to the fall of the loss."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.continual.by_parameter import ByParameter, by_parameter, listed, parameters_of
from f3eo.continual.importance import Importance
from f3eo.optimizer.checks import in_range
from f3eo.optimizer.past import Data, Present
from f3eo.tensors import plus, squared_norm, wide

KINDS = "contributions", "starts", "before", "gradients"
"""The tensors of its state."""


class PathIntegral(Importance):
    """Ω = max(ω, 0) / (Δ² + ξ), ω = −Σ_t g_t ∘ (θ_{t+1} − θ_t), Δ = θ* − θ at the task's start.

    g_t is the gradient of the task's own loss at step t, without penalties and without rehearsal.
    Σ_p ω_p is the fall of the loss over the task, to first order in the steps. Synaptic
    intelligence is `Elastic(PathIntegral(), strength=2c, decay=1.0)`: importances of all tasks are
    added, the anchor is the last θ*.

    Departure from the source: ω < 0, where a parameter moved up its loss, counts as 0, so that the
    penalty stays convex.

    Args:
        damping: ξ, in squared units of θ; default 0.1.

    Raises:
        TypeError, ValueError: a damping that is no positive number.

    Source: Zenke et al. 2017 (1703.04200), eq. 4 and 5.
    """

    def __init__(self, damping: float = 0.1) -> None:
        self.damping = in_range("damping", damping, 0, None)
        self._contributions = ByParameter()
        self._starts = ByParameter()
        self._before = ByParameter()
        self._gradients = ByParameter()

    def before(self, present: Present) -> None:
        """See `Importance.before`."""
        gradients = present.gradients.gradient
        rows = zip(gradients, present.signs, strict=True)
        uphill = [-g if g is not None and sign < 0 else g for g, sign in rows]
        self.observe(present.parameters, uphill)

    def after(self, present: Present) -> None:
        """See `Importance.after`."""
        self._settle()

    @torch.no_grad()
    def observe(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """See `Importance.observe`; the step is known at the next call, or at `measure`."""
        self._settle()
        for p, g in zip(parameters, gradients, strict=True):
            if p not in self._starts:
                self._starts[p] = p.detach().clone()
                self._contributions[p] = torch.zeros_like(wide(p))
            if g is not None:
                self._before[p], self._gradients[p] = p.detach().clone(), g.detach().clone()

    @torch.no_grad()
    def _settle(self) -> None:
        """ω ← ω − g ∘ (θ − θ before), once for every step; one that was skipped moved nothing."""
        parameters = list(self._before)
        if not parameters:
            return
        moved = plus(list(map(wide, parameters)), list(map(wide, self._before.values())), -1.0)
        if squared_norm(moved) > 0:
            for p, way in zip(parameters, moved, strict=True):
                self._contributions[p].addcmul_(self._gradients[p].to(way), way, value=-1)
        self._before, self._gradients = ByParameter(), ByParameter()

    @torch.no_grad()
    def measure(
        self, model: nn.Module | Iterable[Tensor], closure: Closure | None, data: Data | None
    ) -> ByParameter:
        """See `Importance.measure`; closure and data are not used.

        Raises:
            ValueError: no step was seen since the last task.
        """
        if not self._starts:
            raise ValueError(
                "PathIntegral has seen no step since the last consolidate(): pass the part to "
                "F3EO(..., past=part), or call part.observe(parameters) before every step"
            )
        self._settle()
        found = ByParameter()
        for p in parameters_of(model):
            if p in self._starts:
                moved = (wide(p) - wide(self._starts[p])).square()
                found[p] = self._contributions[p].clamp(min=0) / (moved + self.damping)
        self._contributions, self._starts = ByParameter(), ByParameter()
        return found

    def state_dict(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """See `Importance.state_dict`."""
        return {kind: listed(getattr(self, f"_{kind}"), parameters) for kind in KINDS}

    def load_state_dict(self, state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        """See `Importance.load_state_dict`."""
        for kind in KINDS:
            setattr(self, f"_{kind}", by_parameter(state[kind], parameters))
