"""SAM over SGD, from the maintained package pytorch_optimizer (arXiv 2010.01412)."""

from collections.abc import Mapping
from typing import Any

from pytorch_optimizer import SAM
from torch import Tensor, nn
from torch.optim import SGD

from f3eo.bench.methods.method import Closure, Method, Stepper


class SharpnessAwareStepper(Stepper):
    """Two gradients a step: one to climb by rho, one there to descend with."""

    gradient_equivalents = 2.0

    def __init__(self, optimizer: SAM) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Climb, take the gradient there, return, and descend with it."""

        def gradient() -> Tensor:
            self.optimizer.zero_grad()
            loss = closure(x, y).mean()
            loss.backward()
            return loss.detach()

        # pytorch_optimizer's step expects the first gradient to be there already, runs the
        # closure once at the perturbed weights, and returns nothing.
        loss = gradient()
        self.optimizer.step(lambda: float(gradient()))
        return loss


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """SAM around SGD on all parameters; nothing is random, the seed is unused."""
    return SharpnessAwareStepper(SAM(model.parameters(), SGD, **options))


METHOD = Method(
    name="sam",
    label="SAM",
    colour="#e69f00",
    defaults={"lr": 0.3, "momentum": 0.9, "weight_decay": 1e-3, "rho": 0.1},
    build=build,
)
