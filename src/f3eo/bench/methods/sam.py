"""SAM over a first-order base: pytorch_optimizer.SAM (arXiv 2010.01412)."""

from collections.abc import Mapping
from typing import Any

from pytorch_optimizer import SAM
from torch import Tensor, nn
from torch.optim import Optimizer

from f3eo.bench.methods.bases import BASES, base, groups, own
from f3eo.bench.methods.method import Closure, Method, Source, Stepper, evaluation

TWICE = "gradient at the weights and at perturbed ones"


class SharpnessAwareStepper(Stepper):
    """Two gradients a step: one to climb by rho, one there to descend with."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Climb, take the gradient there, return, and descend with it."""
        gradient = evaluation(closure, x, y, self.optimizer)
        # pytorch_optimizer's step expects the first gradient to be there already, runs the
        # closure once at the perturbed weights, and returns nothing.
        loss = gradient()
        self.optimizer.step(lambda: float(gradient()))
        return loss


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """SAM around a base on all parameters; nothing is random, the seed is unused."""
    name = options["base"]
    optimizer = SAM(groups(name, model), base(name), rho=options["rho"], **own(options))
    return SharpnessAwareStepper(optimizer)


METHOD = Method(
    name="sam",
    label="SAM",
    colour="#e69f00",
    order=1,
    kind="sharpness-aware",
    needs=TWICE,
    source=Source("pytorch-optimizer", "pytorch_optimizer.SAM", "arXiv 2010.01412"),
    defaults={"lr": 0.3, "momentum": 0.9, "weight_decay": 1e-3, "rho": 0.1, "base": "sgd"},
    build=build,
    choices={"base": BASES},
)
