"""The running mean of ∇L, which the structure direction leaves alone beside a batch's ∇L."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from f3eo.continual.by_parameter import ByParameter, by_parameter, listed
from f3eo.optimizer.past import Joined, Past, Present
from f3eo.strength.strength import number
from f3eo.tensors import mixed


class RunningMean(Past):
    """⟨m, d⟩ = 0 beside ⟨g, d⟩ = 0, with m ← ρ m + (1 − ρ) g, in the metric of the base.

    Most of a batch's g is noise: a direction that is off it alone still moves the loss of all
    samples. m has less noise. It costs a vector of the size of the parameters, and no pass through
    the model. Loss and trace are those of the batch.

    Args:
        rate: ρ, in [0, 1); default 0.9.

    Raises:
        TypeError, ValueError: another rate.

    Source: Li et al. 2024 (2403.12350), who take such a mean from SAM's ascent.
    """

    def __init__(self, rate: float = 0.9) -> None:
        if not 0 <= number(self, "rate", rate) < 1:
            raise ValueError(f"RunningMean needs a rate in [0, 1), received {rate}")
        self.rate = rate
        self._mean = ByParameter()
        self._next = ByParameter()

    @torch.no_grad()
    def join(self, present: Present, joined: Joined) -> Joined:
        """See `Past.join`: m of the steps before joins what is held."""
        # The base may write into g, so m with this step is formed before it, and kept after it.
        pairs = zip(present.parameters, present.gradients.gradient, strict=True)
        new = {p: g for p, g in pairs if g is not None}
        before = [self._mean[p] if p in self._mean else torch.zeros_like(g) for p, g in new.items()]
        means = mixed(before, list(new.values()), 1 - self.rate) if new else []
        self._next = ByParameter(zip(new, means, strict=True))
        if joined.gradients.structure is None or not self._mean:
            return joined
        held = [self._mean.get(p) for p in present.parameters]
        return replace(joined, held=(*joined.held, held))

    def after(self, present: Present) -> None:
        """See `Past.after`: the step counts, unless it was skipped."""
        self._mean |= self._next
        self._next = ByParameter()

    def state_dict(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """See `Past.state_dict`."""
        return {"mean": listed(self._mean, parameters)}

    def load_state_dict(self, state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        """See `Past.load_state_dict`."""
        self._mean, self._next = by_parameter(state["mean"], parameters), ByParameter()
