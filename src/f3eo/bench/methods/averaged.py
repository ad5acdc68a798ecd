"""A running average of the weights beside a first-order base: torch.optim.swa_utils.

The base trains as it does alone; what is measured is the average.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from f3eo.bench.methods.bases import BASES, build_base
from f3eo.bench.methods.method import GRADIENT, Closure, GradientStepper, Method, Source, Stepper


class AveragedStepper(GradientStepper):
    """The base's steps, and a ← a + (θ − a) / min(t, horizon) after the t-th.

    So a is the mean of all θ in the first steps, and then forgets at the rate 1 / horizon: without
    that start a long average would hold the first θ for most of a short run.

    Args:
        model: the model that the base trains.
        optimizer: the base.
        horizon: steps that the average reaches back, at least 1; its decay is 1 − 1 / horizon.

    Source: Polyak & Juditsky 1992; arXiv 2411.18704.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, horizon: float) -> None:
        if not horizon >= 1:
            raise ValueError(f"horizon must be at least 1 step, got {horizon}; 1 is the base alone")
        super().__init__(optimizer)
        self.model = model

        def towards(average: PARAM_LIST, trained: PARAM_LIST, steps: Tensor | int) -> None:
            decay = 1 - 1 / min(int(steps) + 1, horizon)
            get_ema_multi_avg_fn(decay)(average, trained, steps)

        self.average = AveragedModel(model, multi_avg_fn=towards)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One step of the base, then one of the average."""
        loss = super().step(closure, x, y)
        self.average.update_parameters(self.model)
        return loss

    def rest(self) -> None:
        """Put the average into the model."""
        self._swap()

    def resume(self) -> None:
        """Put the trained parameters back."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        pairs = zip(self.model.parameters(), self.average.module.parameters(), strict=True)
        for trained, average in pairs:
            kept = trained.clone()
            trained.copy_(average)
            average.copy_(kept)


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """A base on all parameters with their average; deterministic, `seed` is unused."""
    return AveragedStepper(model, build_base(model, options), options["horizon"])


METHOD = Method(
    name="ema",
    label="averaged weights",
    colour="#7a9e3f",
    order=1,
    kind="averaged",
    needs=f"{GRADIENT}; the average is measured",
    source=Source("torch", "torch.optim.swa_utils.AveragedModel", "arXiv 2411.18704"),
    defaults={**BASES["sgd"].defaults, "horizon": 100.0, "base": "sgd"},
    build=build,
    choices={"base": BASES},
)
