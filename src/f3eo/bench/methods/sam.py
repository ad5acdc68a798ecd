"""SAM over a first-order base: pytorch_optimizer.SAM (arXiv 2010.01412)."""

from collections.abc import Mapping
from typing import Any

from pytorch_optimizer import SAM
from torch import Tensor, nn
from torch.optim import Optimizer

from f3eo.bench.methods.bases import BASES, base_arguments, base_named
from f3eo.bench.methods.method import Closure, Method, Source, Stepper, evaluation

TWO_GRADIENTS = "gradient at the weights and at perturbed ones"


class SharpnessAwareStepper(Stepper):
    """Two gradients per step: one to perturb the parameters by rho, one there to descend."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Perturb, take the gradient there, restore the parameters, and descend with it."""
        gradient = evaluation(closure, x, y, self.optimizer)
        # pytorch_optimizer's step expects the first gradient in .grad, calls the closure once at
        # the perturbed parameters, and returns None.
        loss = gradient()
        self.optimizer.step(lambda: float(gradient()))
        return loss


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """SAM around a base on all parameters; deterministic, `seed` is unused."""
    base, arguments = base_named(options["base"]), base_arguments(options)
    optimizer = SAM(base.groups(model), base.optimizer, rho=options["rho"], **arguments)
    return SharpnessAwareStepper(optimizer)


METHOD = Method(
    name="sam",
    label="SAM",
    colour="#e69f00",
    order=1,
    kind="sharpness-aware",
    needs=TWO_GRADIENTS,
    source=Source("pytorch-optimizer", "pytorch_optimizer.SAM", "arXiv 2010.01412"),
    defaults={**BASES["sgd"].defaults, "rho": 0.1, "base": "sgd"},
    build=build,
    choices={"base": BASES},
)
