"""A method: an optimizer behind one way to take a step, and what is known of where it is from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

GRADIENT = "gradient"

Closure = Callable[[Tensor, Tensor], Tensor]
"""(x, y) -> per-sample losses (B,), with their graph."""


class Stepper(ABC):
    """An optimizer at work on one model.

    What a step costs is not said here but counted: see `f3eo.bench.methods.count`.

    Attributes:
        optimizers: the torch optimizers whose learning rate is scheduled; none if it needs no
            schedule.
    """

    optimizers: tuple[Optimizer, ...]

    @abstractmethod
    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Take one step on the batch and return its mean loss, detached.

        The loss is that of the weights before the step, or, if the method looks at the loss
        nowhere but at perturbed weights, of the first of those.
        """

    def rest(self) -> None:  # noqa: B027  most have nothing to do
        """Put the weights to be measured into the model; most methods keep them there."""

    def resume(self) -> None:  # noqa: B027
        """Put the weights to be trained back, after `rest`."""


class GradientStepper(Stepper):
    """One gradient, then one step of each optimizer (each owns its part of the parameters)."""

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One forward, one backward, one update."""
        loss = evaluation(closure, x, y, *self.optimizers)()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss


class ClosureStepper(Stepper):
    """The optimizer evaluates loss and gradient itself, as often as it likes."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One call of the optimizer's step; what it returns differs, so the first loss is kept."""
        evaluate, losses = evaluation(closure, x, y, self.optimizer), list[Tensor]()

        def kept() -> Tensor:
            losses.append(evaluate())
            return losses[-1]

        self.optimizer.step(kept)  # type: ignore[arg-type]
        return losses[0]


def evaluation(
    closure: Closure, x: Tensor, y: Tensor, *optimizers: Optimizer
) -> Callable[[], Tensor]:
    """What torch calls a closure: clear the gradients, take anew the mean loss and its gradient."""

    def evaluate() -> Tensor:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = closure(x, y).mean()
        loss.backward()
        return loss.detach()

    return evaluate


@dataclass(frozen=True)
class Source:
    """Where a method is from: always a maintained package, never a copy.

    Args:
        package: its name on PyPI.
        name: the class, dotted.
        paper: what to cite.
        extra: the extra of f3eo that installs the package; default "bench".
    """

    package: str
    name: str
    paper: str
    extra: str = "bench"

    @property
    def version(self) -> str | None:
        """The installed version; None if it is not installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


@dataclass(frozen=True)
class Method:
    """A named way to train, with the hyper-parameters it understands.

    Args:
        name: short name, as typed on the command line.
        label: name in tables and figures.
        colour: its colour in every figure, as #rrggbb.
        order: what the field would call it: 1 steps by the gradient, 2 by curvature or statistics
            that stand for it, 3 by the gradient of curvature.
        kind: the idea, in a word or two.
        needs: what it asks of the loop beyond a gradient at the weights; GRADIENT is nothing.
        source: where it is from.
        defaults: every hyper-parameter and its value, `lr` among them; tasks and users override by
            name.
        build: (model, options, seed) -> the stepper; `options` holds every name of `defaults`.
        note: what a user should know; default nothing.
        choices: by option that is a name, the names it may have; default none is.
        idle: all options -> those that have no effect beside the others, each with the reason and
            the cure, as the end of a sentence; default none.
    """

    name: str
    label: str
    colour: str
    order: int
    kind: str
    needs: str
    source: Source
    defaults: Mapping[str, Any]
    build: Callable[[nn.Module, Mapping[str, Any], int], Stepper]
    note: str = ""
    choices: Mapping[str, Collection[str]] = field(default_factory=dict)
    idle: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda options: {}

    def options(self, *overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The full hyper-parameters: the defaults, overridden from left to right.

        Raises:
            ValueError: an override this method does not have.
        """
        merged = dict(self.defaults)
        for override in overrides:
            for name, value in override.items():
                if name not in merged:
                    raise ValueError(
                        f"{self.name} has no option {name!r}; it has {', '.join(self.defaults)}"
                    )
                merged[name] = value
        return merged
