"""F3EO over SGD: the loss, and the Fisher trace where it does not disturb the descent."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from f3eo import F3EO, Ratio
from f3eo.bench.methods.method import Closure, Method, Source, Stepper


class FisherStepper(Stepper):
    """F3EO takes the closure and the batch itself."""

    def __init__(self, optimizer: F3EO) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Gradient and trace on one batch, then a step of SGD."""
        return self.optimizer.step(closure, x, y)


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """F3EO around SGD; the seed decides which samples of a batch give the trace."""
    base = {name: options[name] for name in ("lr", "momentum", "weight_decay")}
    optimizer = F3EO(
        model,
        SGD,
        fraction=options["fraction"],
        weight=Ratio(options["ratio"]),
        generator=torch.Generator().manual_seed(seed),
        **base,
    )
    return FisherStepper(optimizer)


METHOD = Method(
    name="f3eo",
    label="F3EO",
    colour="#c2185b",
    order=3,
    kind="Fisher trace",
    needs="per-sample losses",
    source=Source("f3eo", "f3eo.F3EO", "f3eo"),
    defaults={
        "lr": 0.3,
        "momentum": 0.9,
        "weight_decay": 1e-3,
        "ratio": 0.3,
        "fraction": 0.25,
    },
    build=build,
)
