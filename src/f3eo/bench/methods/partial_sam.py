"""SAM that climbs on a part of the batch and descends on all of it: pytorch_optimizer.SAM.

A quarter is what Bahri et al. (arXiv 2110.08529) use after Brock et al. (2102.06171). Batches are
in random order, so their first samples are a random part.
"""

from collections.abc import Mapping
from typing import Any

from pytorch_optimizer import SAM
from torch import Tensor, nn
from torch.optim import Optimizer

from f3eo.bench.methods.bases import BASES, base_arguments, base_named
from f3eo.bench.methods.method import Closure, Method, Source, Stepper, evaluation


class PartialSharpnessStepper(Stepper):
    """SAM whose perturbation comes from the first samples of the batch.

    Args:
        optimizer: pytorch_optimizer.SAM around a base.
        fraction: share of the batch in (0, 1], rounded, at least one sample.
    """

    def __init__(self, optimizer: Optimizer, fraction: float) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {fraction}; 1 is SAM itself")
        self.optimizer, self.fraction = optimizer, fraction
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Perturb by the gradient of the part, take that of the batch there, descend with it.

        Returns the mean loss of the part: the batch is evaluated at perturbed parameters only.
        """
        part = max(1, round(self.fraction * len(x)))
        loss = evaluation(closure, x[:part], y[:part], self.optimizer)()
        gradient = evaluation(closure, x, y, self.optimizer)
        self.optimizer.step(lambda: float(gradient()))
        return loss


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """SAM around a base on all parameters; deterministic, `seed` is unused."""
    base, arguments = base_named(options["base"]), base_arguments(options)
    optimizer = SAM(base.groups(model), base.optimizer, rho=options["rho"], **arguments)
    return PartialSharpnessStepper(optimizer, options["fraction"])


METHOD = Method(
    name="partial_sam",
    label="SAM, part of the batch",
    colour="#f2c14e",
    order=1,
    kind="sharpness-aware",
    needs="gradient of a part of the batch, and of the batch at perturbed weights",
    source=Source("pytorch-optimizer", "pytorch_optimizer.SAM", "arXiv 2110.08529"),
    defaults={**BASES["sgd"].defaults, "rho": 0.1, "fraction": 0.25, "base": "sgd"},
    build=build,
    choices={"base": BASES},
)
