"""AdamW: torch.optim.AdamW (arXiv 1711.05101)."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import AdamW

from f3eo.bench.methods.bases import BASES
from f3eo.bench.methods.method import GRADIENT, GradientStepper, Method, Source, Stepper


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """AdamW on all parameters; deterministic, `seed` is unused."""
    return GradientStepper(AdamW(model.parameters(), **options))


METHOD = Method(
    name="adamw",
    label="AdamW",
    colour="#0072b2",
    order=1,
    kind="adaptive",
    needs=GRADIENT,
    source=Source("torch", "torch.optim.AdamW", "arXiv 1711.05101"),
    defaults={"lr": BASES["adamw"].lr, "weight_decay": BASES["adamw"].weight_decay},
    build=build,
)
