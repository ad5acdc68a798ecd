"""Muon on matrices and kernels, AdamW on the rest: pytorch_optimizer.Muon (arXiv 2502.16982).

torch's own takes matrices alone, which leaves a convolutional network to AdamW; on matrices both
take the same step.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from f3eo.bench.methods.bases import Muon, groups, settings
from f3eo.bench.methods.method import GRADIENT, GradientStepper, Method, Source, Stepper


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Muon and AdamW in one; nothing is random, the seed is unused."""
    return GradientStepper(Muon(groups("muon", model), **settings("muon", **options)))


METHOD = Method(
    name="muon",
    label="Muon",
    colour="#009e73",
    order=1,
    kind="orthogonalised",
    needs=GRADIENT,
    source=Source("pytorch-optimizer", "pytorch_optimizer.Muon", "arXiv 2502.16982"),
    defaults={"lr": 3e-3, "momentum": 0.95, "weight_decay": 1e-2},
    build=build,
)
