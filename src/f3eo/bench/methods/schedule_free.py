"""Schedule-free SGD and AdamW (schedulefree) or base (pytorch_optimizer), arXiv 2405.15682."""

from collections.abc import Mapping
from typing import Any

from pytorch_optimizer import ScheduleFreeWrapper
from torch import Tensor, nn

from f3eo.bench.methods.bases import BASES, base_named
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


def wrapped(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Schedule-free over a base; deterministic, `seed` is unused.

    z ← z − base's step at y, x ← the mean of z, y = (1 − β) z + β x, with β the option `momentum`.
    The base's own momentum is off, as β is in its place. SGD's rate is lr / (1 − β): with momentum
    a gradient moves SGD by so much in the end. Muon keeps its own: without it, at a rate of 0.003,
    mnist1d-mlp falls from 67 to 57 % (held-out samples, two splits). Weight decay acts at z.
    """
    base, beta = base_named(options["base"]), options["momentum"]
    lr = options["lr"] / (1 - beta) if options["base"] == "sgd" else options["lr"]
    own = beta if options["base"] == "muon" else 0.0
    inner = base.optimizer(base.groups(model), **base.arguments(lr, options["weight_decay"], own))
    return ScheduleFreeStepper(ScheduleFreeWrapper(inner, momentum=beta))


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
    Method(
        name="schedule_free",
        label="Schedule-Free",
        colour="#3a86a8",
        order=1,
        kind="averaged",
        needs=f"{GRADIENT}; train() and eval()",
        source=Source("pytorch-optimizer", "pytorch_optimizer.ScheduleFreeWrapper", PAPER),
        defaults={**BASES["sgd"].defaults, "base": "sgd"},
        build=wrapped,
        choices={"base": BASES},
    ),
)
