"""L-BFGS: torch.optim.LBFGS with a fixed number of gradients per batch.

Without line search and tolerances every step takes `max_iter` gradients, so its cost is known
before the run.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import LBFGS

from f3eo.bench.methods.method import ClosureStepper, Method, Source, Stepper


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """L-BFGS on all parameters; deterministic, `seed` is unused."""
    exact = {"tolerance_grad": 0.0, "tolerance_change": 0.0}
    return ClosureStepper(LBFGS(model.parameters(), **exact, **options))


METHOD = Method(
    name="lbfgs",
    label="L-BFGS",
    colour="#8b5e3c",
    order=2,
    kind="quasi-Newton",
    needs="gradient, re-evaluated on the same batch",
    source=Source("torch", "torch.optim.LBFGS", "Liu & Nocedal 1989"),
    defaults={"lr": 0.1, "max_iter": 4, "history_size": 10},
    build=build,
)
