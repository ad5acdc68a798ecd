"""SGD with momentum: torch.optim.SGD."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import SGD

from f3eo.bench.methods.bases import BASES
from f3eo.bench.methods.method import GRADIENT, GradientStepper, Method, Source, Stepper


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """SGD on all parameters; deterministic, `seed` is unused."""
    return GradientStepper(SGD(model.parameters(), **options))


METHOD = Method(
    name="sgd",
    label="SGD",
    colour="#6b7280",
    order=1,
    kind="momentum",
    needs=GRADIENT,
    source=Source("torch", "torch.optim.SGD", "Polyak 1964"),
    defaults=BASES["sgd"].defaults,
    build=build,
)
