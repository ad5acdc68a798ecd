"""Checks of a method on convex problems.

| check | requirement |
|---|---|
| descent | on least squares and on logistic regression, 60 steps lower the loss by a tenth, at the default learning rate or ten times, a tenth or a hundredth of it |
| uphill | at a thousandth of the default learning rate, 20 steps do not raise the loss |
| still | with a zero gradient, and with learning rate zero, the parameters do not move |
| closure | it is called with gradients enabled, on samples of the batch, and a finite loss is returned |

What a NaN loss does is reported, but is no problem: plain SGD passes it on, too.
"""  # noqa: E501

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from f3eo.bench.methods import METHODS, Closure, Stepper

UNPENALISED = {"weight_decay": 0.0, "weight_penalty": 0.0, "activation_penalty": 0.0}
"""Penalties off: only the loss moves the parameters."""
SAMPLES, INPUTS, OUTPUTS = 32, 5, 3
DESCENT, UPHILL = 60, 20
STILL = 1e-6
"""Largest relative move of the parameters; adding and removing a perturbation rounds."""


class Health(NamedTuple):
    """Results of the checks.

    Attributes:
        problems: a sentence for each failed check; empty for a sound method.
        nan: effect of a NaN loss: "skipped", "raises" or "spreads" into the parameters.
    """

    problems: list[str]
    nan: str


def examine(method: str) -> Health:
    """Check a method of the registry; torch's global generator is restored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows of runs record them
        return _examine(method)


def _examine(method: str) -> Health:
    problems = list[str]()
    for check in (_closure, _descent, _uphill, _zero, _idle):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                problems += check(method)
            except Exception as error:
                where = (check.__doc__ or "").removesuffix(".").lower()
                problems.append(f"raises {where}: {type(error).__name__}: {error}")
                if check is _closure:  # no step works
                    return Health(problems, "–")
    return Health(problems, _nan(method))


class _Trial:
    """A method on a convex problem of 32 samples."""

    def __init__(self, method: str, loss: Callable[[Tensor, Tensor], Tensor], **options: Any):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(SAMPLES, INPUTS, generator=generator)
        self.y = (self.x @ torch.randn(INPUTS, OUTPUTS, generator=generator)).argmax(1)
        torch.manual_seed(0)
        self.model = nn.Linear(INPUTS, OUTPUTS)
        self.closure: Closure = lambda x, y: loss(self.model(x), y)
        known = METHODS[method].defaults
        given = {name: value for name, value in options.items() if name in known}
        self.stepper: Stepper = METHODS[method].build(self.model, {**known, **given}, 0)

    def parameters(self) -> Tensor:
        """All parameters, flat, as they are measured."""
        self.stepper.rest()
        flat = torch.cat([p.detach().flatten() for p in self.model.parameters()]).clone()
        self.stepper.resume()
        return flat

    def loss(self) -> float:
        """The mean loss at the parameters that are measured."""
        self.stepper.rest()
        with torch.no_grad():
            loss = float(self.closure(self.x, self.y).mean())
        self.stepper.resume()
        return loss

    def steps(self, number: int) -> None:
        for _ in range(number):
            self.stepper.step(self.closure, self.x, self.y)


def _squares(outputs: Tensor, y: Tensor) -> Tensor:
    """½‖z − e_y‖², e_y the one-hot label."""
    return (outputs - F.one_hot(y, OUTPUTS)).square().sum(1) / 2


def _logistic(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y, reduction="none")


CHECKING = ("f3eo",)
"""Methods that also call the closure without gradients, to test whether it couples samples."""

PROBLEMS = {"least squares": _squares, "logistic regression": _logistic}


def _closure(method: str) -> list[str]:
    """In its first step."""
    trial, problems, calls = _Trial(method, _logistic), list[str](), 0
    inner, samples = trial.closure, {tuple(row) for row in trial.x.tolist()}

    def counted(x: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if not torch.is_grad_enabled() and method not in CHECKING:
            problems.append("the closure is called with gradients switched off")
        if not {tuple(row) for row in x.tolist()} <= samples:
            problems.append("the closure is called with samples that are not in the batch")
        return inner(x, y)

    loss = trial.stepper.step(counted, trial.x, trial.y)
    if not calls:
        problems.append("the closure is never called")
    if loss.requires_grad or loss.ndim or not loss.isfinite():
        problems.append(f"the loss of a step is {loss}")
    if not trial.model.training:
        problems.append("the model is left in evaluation mode")
    return problems


def _descent(method: str) -> list[str]:
    """While it trains."""
    problems = list[str]()
    for name, loss in PROBLEMS.items():
        ends = list[str]()
        for factor in (1, 10, 0.1, 0.01):
            trial = _Trial(method, loss, lr=METHODS[method].defaults["lr"] * factor)
            before = trial.loss()
            trial.steps(DESCENT)
            if trial.loss() < 0.9 * before:
                break
            ends.append(f"{trial.loss():.3g}")
        else:
            problems.append(f"does not descend on {name}: from {before:.3g} to {', '.join(ends)}")
    return problems


def _uphill(method: str) -> list[str]:
    """In small steps."""
    problems = list[str]()
    for name, loss in PROBLEMS.items():
        trial = _Trial(method, loss, lr=METHODS[method].defaults["lr"] / 1000, **UNPENALISED)
        before = trial.loss()
        trial.steps(UPHILL)
        if not trial.loss() <= before * (1 + STILL):
            problems.append(f"moves uphill on {name}: from {before:.6g} to {trial.loss():.6g}")
    return problems


def _zero(method: str) -> list[str]:
    """Where the gradient is zero."""
    flat = _Trial(method, lambda outputs, y: 0.0 * _squares(outputs, y), **UNPENALISED)
    return _moves(flat, "where the gradient is zero")


def _idle(method: str) -> list[str]:
    """At learning rate zero."""
    return _moves(_Trial(method, _logistic, lr=0.0), "at learning rate zero")


def _moves(trial: _Trial, where: str) -> list[str]:
    before = trial.parameters()
    trial.steps(3)
    moved = (trial.parameters() - before).norm() / before.norm()
    if moved <= STILL:
        return []
    return [f"the parameters move {where}: by {float(moved):.2g} of their size"]


def _nan(method: str) -> str:
    """The effect of a step on a NaN batch, seen after another step on the original batch."""
    with torch.random.fork_rng(devices=[]):
        trial = _Trial(method, _logistic)
        try:
            trial.stepper.step(trial.closure, trial.x * torch.nan, trial.y)
        except Exception:
            return "raises"
        trial.steps(1)
        return "skipped" if trial.parameters().isfinite().all() else "spreads"
