"""Whether a method does what every optimizer must, tried on problems anyone can solve.

| check | what must hold |
|---|---|
| descent | on least squares and on logistic regression, both convex, sixty steps lower the loss by a tenth, at the method's default learning rate or ten times, a tenth or a hundredth of it |
| uphill | at a thousandth of it, twenty steps do not raise the loss |
| still | where the gradient is zero, and at learning rate zero, the weights stay |
| closure | it is called with gradients on, on the batch's own samples, and the loss comes back |

What a loss that is not a number does is noted, but is no fault: plain SGD passes it on, too.
"""  # noqa: E501

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from f3eo.bench.methods import METHODS, Closure, Stepper

SAMPLES, INPUTS, OUTPUTS = 32, 5, 3
DESCENT, UPHILL = 60, 20
STILL = 1e-6
"""How far weights may move, relative to their size, by adding and subtracting a perturbation."""


class Health(NamedTuple):
    """What the checks found.

    Attributes:
        problems: what is wrong, in words; empty for a method that is sound.
        nan: what a NaN loss does: "skipped", "raises" or "spreads" into the weights.
    """

    problems: list[str]
    nan: str


def examine(method: str) -> Health:
    """Try a method of the registry; torch's global generator stays as it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a run they are recorded
        return _examined(method)


def _examined(method: str) -> Health:
    problems = list[str]()
    for check in (_closure, _descent, _uphill, _zero, _idle):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                problems += check(method)
            except Exception as error:
                where = (check.__doc__ or "").removesuffix(".").lower()
                problems.append(f"raises {where}: {type(error).__name__}: {error}")
                if check is _closure:  # it cannot take a step at all
                    return Health(problems, "–")
    return Health(problems, _nan(method))


class _Trial:
    """A method on a convex problem."""

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

    def weights(self) -> Tensor:
        """All in a row, as they are measured."""
        self.stepper.rest()
        found = torch.cat([p.detach().flatten() for p in self.model.parameters()]).clone()
        self.stepper.resume()
        return found

    def loss(self) -> float:
        """The mean loss at those weights."""
        self.stepper.rest()
        with torch.no_grad():
            found = float(self.closure(self.x, self.y).mean())
        self.stepper.resume()
        return found

    def steps(self, number: int) -> None:
        for _ in range(number):
            self.stepper.step(self.closure, self.x, self.y)


def _squares(outputs: Tensor, y: Tensor) -> Tensor:
    """½‖z − e_y‖², e_y the one-hot label."""
    return (outputs - F.one_hot(y, OUTPUTS)).square().sum(1) / 2


def _logistic(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y, reduction="none")


CHECKING = ("f3eo",)
"""Methods that run the closure without gradients, to see whether it couples its samples."""

PROBLEMS = {"least squares": _squares, "logistic regression": _logistic}


def _closure(method: str) -> list[str]:
    """In its first step."""
    trial, found, calls = _Trial(method, _logistic), list[str](), 0
    inner, samples = trial.closure, {tuple(row) for row in trial.x.tolist()}

    def watched(x: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if not torch.is_grad_enabled() and method not in CHECKING:
            found.append("the closure is called with gradients switched off")
        if not {tuple(row) for row in x.tolist()} <= samples:
            found.append("the closure is called with other samples than the batch's")
        return inner(x, y)

    loss = trial.stepper.step(watched, trial.x, trial.y)
    if not calls:
        found.append("the closure is never called")
    if loss.requires_grad or loss.ndim or not loss.isfinite():
        found.append(f"the loss of a step is {loss}")
    if not trial.model.training:
        found.append("the model is left in evaluation mode")
    return found


def _descent(method: str) -> list[str]:
    """While it trains."""
    found = list[str]()
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
            found.append(f"does not descend on {name}: from {before:.3g} to {', '.join(ends)}")
    return found


def _uphill(method: str) -> list[str]:
    """In small steps."""
    found = list[str]()
    for name, loss in PROBLEMS.items():
        trial = _Trial(method, loss, lr=METHODS[method].defaults["lr"] / 1000, weight_decay=0.0)
        before = trial.loss()
        trial.steps(UPHILL)
        if not trial.loss() <= before * (1 + STILL):
            found.append(f"moves uphill on {name}: from {before:.6g} to {trial.loss():.6g}")
    return found


def _zero(method: str) -> list[str]:
    """Where the gradient is zero."""
    flat = _Trial(method, lambda outputs, y: 0.0 * _squares(outputs, y), weight_decay=0.0)
    return _moves(flat, "where the gradient is zero")


def _idle(method: str) -> list[str]:
    """At learning rate zero."""
    return _moves(_Trial(method, _logistic, lr=0.0), "at learning rate zero")


def _moves(trial: _Trial, where: str) -> list[str]:
    before = trial.weights()
    trial.steps(3)
    moved = (trial.weights() - before).norm() / before.norm()
    if moved <= STILL:
        return []
    return [f"the weights move {where}: by {float(moved):.2g} of their size"]


def _nan(method: str) -> str:
    """A step on NaN, one on the good batch again: where are the weights?"""
    with torch.random.fork_rng(devices=[]):
        trial = _Trial(method, _logistic)
        try:
            trial.stepper.step(trial.closure, trial.x * torch.nan, trial.y)
        except Exception:
            return "raises"
        trial.steps(1)
        return "skipped" if trial.weights().isfinite().all() else "spreads"
