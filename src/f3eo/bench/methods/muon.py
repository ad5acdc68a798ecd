"""Muon on the matrices, AdamW on the rest: torch.optim.Muon takes only 2-D parameters.

`match_rms_adamw` gives Muon's update the size of AdamW's, so that both share one learning
rate and one weight decay (arXiv 2502.16982).
"""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon

from f3eo.bench.methods.method import GRADIENT, GradientStepper, Method, Source, Stepper


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Muon and AdamW side by side; nothing is random, the seed is unused."""
    shared = {"lr": options["lr"], "weight_decay": options["weight_decay"]}
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    muon = Muon(matrices, momentum=options["momentum"], adjust_lr_fn="match_rms_adamw", **shared)
    return GradientStepper(muon, AdamW(rest, **shared)) if rest else GradientStepper(muon)


METHOD = Method(
    name="muon",
    label="Muon",
    colour="#009e73",
    order=1,
    kind="orthogonalised",
    needs=GRADIENT,
    source=Source("torch", "torch.optim.Muon", "arXiv 2502.16982"),
    defaults={"lr": 3e-3, "momentum": 0.95, "weight_decay": 1e-2},
    build=build,
)
