"""A learner: what trains one model over the stages of a stream; and its record, a peer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from optuna.distributions import FloatDistribution
from torch import Tensor, nn
from torch.optim import Optimizer

from f3eo.bench.methods import Closure, Stepper
from f3eo.bench.methods.method import Source, merged

Batches = Iterable[tuple[Tensor, Tensor]]
"""Batches (x, y) of one stage."""
Space = Mapping[str, FloatDistribution]
"""Options that are searched, with their ranges."""


class Learner(ABC):
    """Trains one model; knows where a stage begins and ends.

    Attributes:
        optimizers: torch optimizers whose learning rate a schedule may scale within a stage.
    """

    optimizers: tuple[Optimizer, ...]

    def begin(self, stage: int, steps: int) -> None:  # noqa: B027  empty for most learners
        """Called before the first step of a stage.

        Args:
            stage: its number, from 0.
            steps: number of steps that it will take.
        """

    @abstractmethod
    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Take one step on a batch of the current stage, and return its mean loss, detached.

        What a learner adds to this loss, such as a penalty, is not in it; samples of a memory are
        where they stand in one batch with the current ones.
        """

    def end(self, closure: Closure, batches: Batches) -> None:  # noqa: B027
        """Called after the last step of a stage.

        Args:
            closure: as in `step`.
            batches: of the training samples of this stage, in an order of their own.
        """


class Plain(Learner):
    """A method of the benchmark as it is: it does not know that there are stages."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.optimizers = stepper.optimizers

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """See `Stepper.step`."""
        return self.stepper.step(closure, x, y)


Build = Callable[[nn.Module, Mapping[str, Any], int], Learner]
"""(model, options, seed) -> learner; everything random that it does comes from the seed."""


@dataclass(frozen=True)
class Peer:
    """A learner with a name, its options, and facts about it.

    Args:
        name: short name, as typed on the command line.
        label: name in tables and figures.
        colour: its colour in every figure, as #rrggbb.
        kind: "plain" knows no earlier samples and no earlier parameters, "regularised" holds to
            earlier parameters, "memory" keeps samples of earlier stages.
        source: package and paper.
        defaults: value of every option, `lr` among them.
        space: the options that are searched, two to four of them, with their ranges.
        build: see `Build`; its options have every name of `defaults`.
        note: a remark for users; default "".
        idle: as `Method.idle`; default none.
    """

    name: str
    label: str
    colour: str
    kind: Literal["plain", "regularised", "memory"]
    source: Source
    defaults: Mapping[str, Any]
    space: Space
    build: Build
    note: str = ""
    idle: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda options: {}

    def options(self, *overrides: Mapping[str, Any]) -> dict[str, Any]:
        """All options: the defaults with overrides, where later ones win.

        Raises:
            ValueError: the peer has no option of this name.
        """
        return merged(self.name, self.defaults, overrides)
