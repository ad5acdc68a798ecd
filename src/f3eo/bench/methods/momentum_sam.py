"""Momentum-SAM over a first-order base: one gradient a step, at weights moved along the momentum.

No maintained package has it over these bases (arXiv 2401.12033, algorithm 1; heavyball has it over
LaProp alone). Departures: the parameters are copied back and not moved back, so nothing is rounded;
the norm is that of all parameters, in one group or in several.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from f3eo.bench.methods.bases import BASES, build_base
from f3eo.bench.methods.method import Closure, Method, Source, Stepper, evaluation

BUFFERS = ("momentum_buffer", "exp_avg")
"""Names under which optimizers keep their momentum."""


class MomentumStepper(Stepper):
    """The base steps with the gradient at θ − ρ m / ‖m‖; m is the base's momentum before the step.

    Args:
        optimizer: the base.
        rho: distance ρ ≥ 0 of the moved parameters.

    Source: arXiv 2401.12033, algorithm 1; for AdamW, m is its first moment.
    """

    def __init__(self, optimizer: Optimizer, rho: float) -> None:
        self.optimizer, self.rho = optimizer, rho
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Move the parameters, take the gradient there, move them back, and step the base."""
        momentum = self._momentum()
        moved = list(momentum)
        saved = [p.detach().clone() for p in moved]
        if moved:
            with torch.no_grad():
                unit = _unit(list(momentum.values()))
                torch._foreach_add_(moved, unit, alpha=-self.rho)  # pyright: ignore
        loss = evaluation(closure, x, y, self.optimizer)()
        if moved:
            with torch.no_grad():
                torch._foreach_copy_(moved, saved)  # pyright: ignore
        self.optimizer.step()
        return loss

    def _momentum(self) -> dict[Tensor, Tensor]:
        """The momentum by parameter; empty before the first step."""
        return {
            p: buffer
            for group in self.optimizer.param_groups
            for p in group["params"]
            for name in BUFFERS
            if (buffer := self.optimizer.state.get(p, {}).get(name)) is not None
        }


def _unit(vector: list[Tensor]) -> list[Tensor]:
    """A vector in parts, over its norm; zero stays zero."""
    norm = torch.stack(torch._foreach_norm(vector)).norm()  # pyright: ignore
    norm = norm.clamp_min(torch.finfo(norm.dtype).tiny)
    return list(torch._foreach_div(vector, norm))  # pyright: ignore


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Momentum-SAM around a base on all parameters; deterministic, `seed` is unused."""
    return MomentumStepper(build_base(model, options), options["rho"])


def idle(options: Mapping[str, Any]) -> dict[str, str]:
    """`rho` without momentum; see `Method.idle`."""
    if options["base"] == "sgd" and options["momentum"] == 0:
        return {"rho": "SGD without momentum has nothing to move along; set msam.momentum above 0"}
    return {}


METHOD = Method(
    name="msam",
    label="Momentum-SAM",
    colour="#f0a35e",
    order=1,
    kind="sharpness-aware",
    needs="gradient at weights moved along the momentum",
    source=Source("f3eo", f"{__name__}.MomentumStepper", "arXiv 2401.12033"),
    defaults={**BASES["sgd"].defaults, "rho": 0.5, "base": "sgd"},
    build=build,
    choices={"base": BASES},
    idle=idle,
    note="no package has it over these bases: written here after the paper's algorithm 1",
)
