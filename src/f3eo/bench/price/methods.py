"""The methods whose cost is measured, all over the same SGD, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_optimizer import SAM
from torch import nn
from torch.optim import SGD

from f3eo import (
    F3EO,
    Compiled,
    Coupled,
    Decoupled,
    DoubleBackward,
    FiniteDifference,
    Fixed,
    MiniBatch,
    PerSample,
    Sign,
)
from f3eo.bench.methods.f3eo import FisherStepper
from f3eo.bench.methods.method import GradientStepper, Stepper
from f3eo.bench.methods.sam import SharpnessAwareStepper
from f3eo.closure.problem import Problem
from f3eo.extend import Estimator
from f3eo.fisher.watch import Watch

RATE = 1e-4
"""Learning rate of all: so small that the weights, and with them the work, stay as they are."""

COMPILED = 5
"""Rounds until a compiled step is recorded and compared three times; the next is at the ninth."""


@dataclass(frozen=True)
class Method:
    """A way to take a step.

    Args:
        name: short name, as typed on the command line.
        label: what it is, in a line.
        build: model -> what takes the steps.
        steps: steps after which the cost repeats; a round takes so many and counts their mean.
        prepared: rounds until its step is what it stays, compiled and compared.
    """

    name: str
    label: str
    build: Callable[[nn.Module], Stepper]
    steps: int = 1
    prepared: int = 0


def _fisher(options: Callable[[], dict[str, Any]] = dict) -> Callable[[nn.Module], Stepper]:
    """F3EO over SGD, h from the whole batch at every step unless `options` say otherwise.

    The options are made anew for each, as some hold state.
    """

    def build(model: nn.Module) -> Stepper:
        generator = torch.Generator().manual_seed(0)
        whole: dict[str, Any] = {"fraction": 1.0, "every": 1}
        return FisherStepper(F3EO(model, SGD, lr=RATE, generator=generator, **whole | options()))

    return build


def _compiled() -> dict[str, Any]:
    return {"estimator": Compiled()}


class _Always(Watch):
    """Every measurement is checked."""

    def due(self, problem: Problem) -> bool:
        super().due(problem)
        return True


def _checked() -> dict[str, Any]:
    estimator = PerSample()
    estimator._watch = _Always()
    return {"estimator": estimator, "fraction": 0.25}


def _exact() -> Estimator:
    return Compiled(PerSample(DoubleBackward()))


def _gradient(model: nn.Module) -> Stepper:
    return GradientStepper(SGD(model.parameters(), lr=RATE))


def _sam(model: nn.Module) -> Stepper:
    return SharpnessAwareStepper(SAM(model.parameters(), SGD, lr=RATE))


GRADIENT = Method("gradient", "plain gradient", _gradient)

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        GRADIENT,
        Method("sam", "SAM", _sam),
        Method(
            "default",
            "F3EO as it is: ¼ of the batch, every 5th step",
            _fisher(lambda: {"fraction": None, "every": 5}),
            steps=5,
        ),
        Method(
            "batch",
            "batch H·g, decoupled",
            _fisher(lambda: {"estimator": MiniBatch(), "rule": Decoupled()}),
        ),
        Method(
            "coupled",
            "per sample, coupled",
            _fisher(lambda: {"rule": Coupled(), "strength": Fixed(0.1)}),
        ),
        Method("decoupled", "per sample, decoupled", _fisher()),
        Method(
            "exact",
            "per sample, double backward",
            _fisher(lambda: {"estimator": PerSample(DoubleBackward())}),
        ),
        Method(
            "sign",
            "signs, finite differences",
            _fisher(lambda: {"estimator": Sign(FiniteDifference())}),
        ),
        Method("fraction", "per sample, ¼ of the batch", _fisher(lambda: {"fraction": 0.25})),
        Method("checked", "the same, checked at every step", _fisher(_checked)),
        Method("every", "per sample, every 2nd step", _fisher(lambda: {"every": 2}), steps=2),
        Method(
            "compiled-coupled",
            "per sample, coupled, compiled",
            _fisher(lambda: _compiled() | {"rule": Coupled(), "strength": Fixed(0.1)}),
            prepared=COMPILED,
        ),
        Method(
            "compiled",
            "per sample, decoupled, compiled",
            _fisher(_compiled),
            prepared=COMPILED,
        ),
        Method(
            "compiled-exact",
            "double backward, compiled",
            _fisher(lambda: {"estimator": _exact()}),
            prepared=COMPILED,
        ),
        Method(
            "compiled-exact-coupled",
            "double backward, coupled, compiled",
            _fisher(lambda: {"estimator": _exact(), "rule": Coupled(), "strength": Fixed(0.1)}),
            prepared=COMPILED,
        ),
        Method(
            "compiled-exact-fraction",
            "double backward, ¼ of the batch, compiled",
            _fisher(lambda: {"estimator": _exact(), "fraction": 0.25}),
            prepared=COMPILED,
        ),
        Method(
            "compiled-exact-every",
            "double backward, every 2nd step, compiled",
            _fisher(lambda: {"estimator": _exact(), "every": 2}),
            steps=2,
            prepared=COMPILED,
        ),
        Method(
            "compiled-fraction",
            "¼ of the batch, compiled",
            _fisher(lambda: _compiled() | {"fraction": 0.25}),
            prepared=COMPILED,
        ),
        Method(
            "compiled-every",
            "every 2nd step, compiled",
            _fisher(lambda: _compiled() | {"every": 2}),
            steps=2,
            prepared=COMPILED,
        ),
    )
}
