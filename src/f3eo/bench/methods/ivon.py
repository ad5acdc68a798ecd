"""IVON, a variational online Newton method: the ivon-opt package (arXiv 2402.17641).

The package is under the GPL, so an extra of its own installs it.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from f3eo.bench.methods.method import Closure, Method, Source, Stepper, evaluation


class SampledWeightsStepper(Stepper):
    """The gradient is taken at parameters sampled around their mean."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Sample parameters, take the gradient there, restore the mean, and step."""
        with self.optimizer.sampled_params(train=True):
            loss = evaluation(closure, x, y, self.optimizer)()
        self.optimizer.step()
        return loss


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """IVON on all parameters; its parameters are sampled with torch's global generator."""
    from ivon import IVON  # here: an optional extra

    return SampledWeightsStepper(IVON(model.parameters(), **options))


METHOD = Method(
    name="ivon",
    label="IVON",
    colour="#7f0000",
    order=2,
    kind="variational",
    needs="gradient at sampled weights",
    source=Source("ivon-opt", "ivon.IVON", "arXiv 2402.17641", extra="ivon"),
    defaults={"lr": 0.1, "ess": 600, "hess_init": 0.5, "beta2": 0.9995, "weight_decay": 1e-4},
    build=build,
    note="the package is under the GPL",
)
