"""Muon on matrices and kernels, AdamW on the rest: pytorch_optimizer.Muon (arXiv 2502.16982).

torch.optim.Muon takes matrices only, which would leave the kernels of a convolutional network to
AdamW. On matrices both make the same step.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from f3eo.bench.methods.bases import BASES
from f3eo.bench.methods.method import GRADIENT, GradientStepper, Method, Source, Stepper


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Muon on matrices, AdamW on the rest; deterministic, `seed` is unused."""
    muon = BASES["muon"]
    arguments = muon.arguments(options["lr"], options["weight_decay"], options["momentum"])
    return GradientStepper(muon.optimizer(muon.groups(model), **arguments))


METHOD = Method(
    name="muon",
    label="Muon",
    colour="#009e73",
    order=1,
    kind="orthogonalised",
    needs=GRADIENT,
    source=Source("pytorch-optimizer", "pytorch_optimizer.Muon", "arXiv 2502.16982"),
    defaults=BASES["muon"].defaults,
    build=build,
)
