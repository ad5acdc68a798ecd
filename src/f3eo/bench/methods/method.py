"""A method: an optimizer with a uniform step, its hyper-parameters, and its source."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

GRADIENT = "gradient"

Closure = Callable[[Tensor, Tensor], Tensor]
"""(x, y) -> per-sample losses (B,), with their graph."""


class Stepper(ABC):
    """An optimizer bound to one model.

    The cost of a step is not declared but counted; see `f3eo.bench.methods.count`.

    Attributes:
        optimizers: torch optimizers whose learning rate is scheduled; empty if the method needs no
            schedule.
    """

    optimizers: tuple[Optimizer, ...]

    @abstractmethod
    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Take one step on the batch and return its mean loss, detached.

        The loss is that at the parameters before the step, or, if the method evaluates it at
        perturbed parameters only, that at the first of them; if it evaluates a part of the batch
        first, that of the part.
        """

    def rest(self) -> None:  # noqa: B027  empty for most methods
        """Put the parameters that are measured into the model; default nothing."""

    def resume(self) -> None:  # noqa: B027
        """Put the trained parameters back into the model, after `rest`; default nothing."""


class GradientStepper(Stepper):
    """One gradient, then one step of each optimizer; each has its own part of the parameters."""

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One forward pass, one backward pass, one update."""
        loss = evaluation(closure, x, y, *self.optimizers)()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss


class ClosureStepper(Stepper):
    """An optimizer whose step evaluates loss and gradient itself."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One call of the optimizer's step; returns the first loss that it evaluates."""
        evaluate, losses = evaluation(closure, x, y, self.optimizer), list[Tensor]()

        def recorded() -> Tensor:
            losses.append(evaluate())
            return losses[-1]

        self.optimizer.step(recorded)  # type: ignore[arg-type]
        return losses[0]


def evaluation(
    closure: Closure, x: Tensor, y: Tensor, *optimizers: Optimizer
) -> Callable[[], Tensor]:
    """A closure as torch optimizers take it: clear gradients, evaluate mean loss and gradient."""

    def evaluate() -> Tensor:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = closure(x, y).mean()
        loss.backward()
        return loss.detach()

    return evaluate


def merged(
    name: str, defaults: Mapping[str, Any], overrides: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The defaults with overrides, where later ones win.

    Args:
        name: whose options they are, for the message.
        defaults: value of every option.
        overrides: of some of them.

    Raises:
        ValueError: there is no option of this name.
    """
    options = dict(defaults)
    for option, value in (item for override in overrides for item in override.items()):
        if option not in options:
            raise ValueError(f"{name} has no option {option!r}; it has {', '.join(defaults)}")
        options[option] = value
    return options


@dataclass(frozen=True)
class Source:
    """The maintained package of a method; the benchmark copies no code.

    Args:
        package: its name on PyPI.
        name: dotted name of the class.
        paper: the paper to cite.
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
    """An optimizer with a name, its hyper-parameters, and facts about it.

    Args:
        name: short name, as typed on the command line.
        label: name in tables and figures.
        colour: its colour in every figure, as #rrggbb.
        order: order of the method: 1 uses the gradient, 2 curvature or statistics that approximate
            it, 3 the gradient of curvature.
        kind: the idea, in one or two words.
        needs: what it needs from the training loop; GRADIENT is a gradient at the parameters.
        source: package and paper.
        defaults: value of every hyper-parameter, `lr` among them; tasks and users override them.
        build: (model, options, seed) -> stepper; `options` has every name of `defaults`.
        note: a remark for users; default "".
        choices: by option with names as values, these names; default no such option.
        idle: (all options) -> options without an effect beside the others, each with the reason
            and the cure, as the end of a message; default none.
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
        """All hyper-parameters: the defaults with overrides, where later ones win.

        Raises:
            ValueError: the method has no option of this name.
        """
        return merged(self.name, self.defaults, overrides)
