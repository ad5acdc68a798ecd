"""Steppers with a monitor beside them, which are priced and not compared."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from f3eo.bench.methods import METHODS, Stepper
from f3eo.bench.methods.f3eo import FisherStepper
from f3eo.bench.methods.method import Closure
from f3eo.monitor import Monitor


class Monitored(Stepper):
    """Any stepper and a monitor with its defaults, which measures by itself."""

    def __init__(self, stepper: Stepper, model: nn.Module) -> None:
        self.stepper = stepper
        self.optimizers = stepper.optimizers
        self._closure: Closure | None = None
        self.monitor = Monitor(stepper.optimizers[0], model=model, closure=self._losses)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """A step, which the monitor counts."""
        self._closure = closure
        loss = self.stepper.step(closure, x, y)
        self.monitor.step(x, y)
        return loss

    def _losses(self, x: Tensor, y: Tensor) -> Tensor:
        assert self._closure is not None
        return self._closure(x, y)


def build_observed(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """F3EO with a monitor that observes it."""
    stepper = METHODS["f3eo"].build(model, options, seed)
    assert isinstance(stepper, FisherStepper)
    Monitor(stepper.optimizer)  # the optimizer keeps it
    return stepper


def build_monitored(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """SGD with a monitor beside it."""
    return Monitored(METHODS["sgd"].build(model, options, seed), model)
