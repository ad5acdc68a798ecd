"""Adam: torch.optim.Adam (arXiv 1412.6980)."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Adam

from f3eo.bench.methods.method import GRADIENT, GradientStepper, Method, Source, Stepper


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Adam on all parameters; deterministic, `seed` is unused."""
    return GradientStepper(Adam(model.parameters(), **options))


METHOD = Method(
    name="adam",
    label="Adam",
    colour="#56b4e9",
    order=1,
    kind="adaptive",
    needs=GRADIENT,
    source=Source("torch", "torch.optim.Adam", "arXiv 1412.6980"),
    defaults={"lr": 3e-3, "weight_decay": 0.0},
    build=build,
)
