"""Schedule-free SGD and AdamW: the schedulefree package (arXiv 2405.15682)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from f3eo.bench.methods.method import GRADIENT, Closure, Method, Source, Stepper, evaluation


class ScheduleFreeStepper(Stepper):
    """Gradients at one point, measurements at the average; the learning rate is not scheduled."""

    optimizers = ()

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        optimizer.train()

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One gradient, then one step."""
        loss = evaluation(closure, x, y, self.optimizer)()
        self.optimizer.step()
        return loss

    def rest(self) -> None:
        """Put the average into the model."""
        self.optimizer.eval()

    def resume(self) -> None:
        """Put the training point into the model."""
        self.optimizer.train()


def sgd(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Schedule-free SGD; deterministic, `seed` is unused."""
    from schedulefree import SGDScheduleFree  # here: rarely needed

    return ScheduleFreeStepper(SGDScheduleFree(model.parameters(), **options))


def adamw(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Schedule-free AdamW; deterministic, `seed` is unused."""
    from schedulefree import AdamWScheduleFree  # here: rarely needed

    return ScheduleFreeStepper(AdamWScheduleFree(model.parameters(), **options))


PAPER = "arXiv 2405.15682"

METHODS = (
    Method(
        name="sgd_free",
        label="SGD, schedule-free",
        colour="#9aa0a6",
        order=1,
        kind="averaged",
        needs=f"{GRADIENT}; train() and eval()",
        source=Source("schedulefree", "schedulefree.SGDScheduleFree", PAPER),
        defaults={"lr": 1.0, "momentum": 0.9, "weight_decay": 0.0, "warmup_steps": 0},
        build=sgd,
    ),
    Method(
        name="adamw_free",
        label="AdamW, schedule-free",
        colour="#17a2c4",
        order=1,
        kind="averaged, adaptive",
        needs=f"{GRADIENT}; train() and eval()",
        source=Source("schedulefree", "schedulefree.AdamWScheduleFree", PAPER),
        defaults={"lr": 2.5e-3, "weight_decay": 0.0, "warmup_steps": 0},
        build=adamw,
    ),
)
