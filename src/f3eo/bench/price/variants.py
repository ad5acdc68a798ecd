"""What `f3eo cost` prices: the plain gradient, peers, and F3EO with one part changed at a time.

Every row is a method of `f3eo.bench.methods` with other options, over SGD.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from f3eo import PerSample
from f3eo.bench.methods import METHODS, Method, Stepper
from f3eo.bench.methods.f3eo import FisherStepper
from f3eo.bench.price.monitored import build_monitored, build_observed
from f3eo.closure.problem import Problem
from f3eo.fisher.watch import Watch
from f3eo.monitor.monitor import EVERY

RATE = 1e-4
"""Learning rate of every row; so small that the parameters, and with them the cost, stay."""

PLAIN_SGD = {"lr": RATE, "momentum": 0.0, "weight_decay": 0.0}

COMPILED = 5
"""Rounds until a compiled step is recorded and compared three times."""

SEED = 0
"""Seed of parameters, data, and what a method draws; the same for every row."""


@dataclass(frozen=True)
class Variant:
    """A method with options of its own, and how it is timed.

    Args:
        name: short name, as typed on the command line.
        label: what it is, in a line.
        method: builds it.
        options: overrides of the method's defaults.
        steps: steps after which the cost repeats; a round takes so many and counts their mean.
        prepared: rounds taken before timing, until a compiled step is compiled and compared.
    """

    name: str
    label: str
    method: Method
    options: Mapping[str, Any]
    steps: int = 1
    prepared: int = 0

    def build(self, model: nn.Module) -> Stepper:
        """The method at work on a model."""
        return self.method.build(model, self.method.options(self.options), SEED)


class Always(Watch):
    """Every measurement is checked."""

    def due(self, problem: Problem) -> bool:
        """True; the measurement is counted."""
        super().due(problem)
        return True


def _build_checked(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """F3EO whose per-sample estimator checks itself at every measurement."""
    stepper = METHODS["f3eo"].build(model, options, seed)
    assert isinstance(stepper, FisherStepper)
    estimator = stepper.optimizer.estimator
    assert isinstance(estimator, PerSample)
    estimator._watch = Always()
    return stepper


def _fisher(name: str, label: str, **options: Any) -> Variant:
    """F3EO over SGD; h from the whole batch at every step unless `options` say otherwise."""
    usual = {**PLAIN_SGD, "estimator": "per_sample", "fraction": 1.0, "every": 1}
    merged = {**usual, **options}
    prepared = COMPILED if merged["estimator"].startswith("compiled") else 0
    return Variant(name, label, METHODS["f3eo"], merged, merged["every"], prepared)


QUARTER = {"fraction": 0.25}
SECOND = {"every": 2}
COUPLED = {"rule": "coupled", "strength": "fixed", "value": 0.1}


def _peer(name: str, label: str, method: str, **options: Any) -> Variant:
    """A method over SGD; with momentum, which some of them need."""
    return Variant(name, label, METHODS[method], {**PLAIN_SGD, "momentum": 0.9, **options})


GRADIENT = Variant("gradient", "plain gradient", METHODS["sgd"], PLAIN_SGD)

VARIANTS: Mapping[str, Variant] = {
    variant.name: variant
    for variant in (
        GRADIENT,
        Variant("sam", "SAM", METHODS["sam"], {**PLAIN_SGD, "rho": 0.05}),
        _peer("partial-sam", "SAM, ¼ of the batch climbs", "partial_sam", rho=0.05),
        _peer("msam", "Momentum-SAM", "msam", rho=0.05),
        _peer("ema", "averaged weights", "ema"),
        _peer("schedule-free", "Schedule-Free", "schedule_free"),
        _peer("last-layer", "last-layer penalty", "last_layer"),
        # fraction None is F3EO's own default: ¼ where the batch can be split
        _fisher("default", "F3EO as it is: ¼ of the batch, every 5th step", fraction=None, every=5),
        Variant(
            "between",
            "the same, a step between two measurements",
            METHODS["f3eo"],
            # value times every, the strength of the one measured step, is small
            {**PLAIN_SGD, "every": 10**9, "value": 1e-12},
            prepared=1,
        ),
        replace(
            _fisher("monitor", "the default, with a monitor", fraction=None, every=5),
            method=replace(METHODS["f3eo"], build=build_observed),
            steps=EVERY,
        ),
        Variant(
            "monitor-plain",
            "plain gradient, with a monitor",
            replace(METHODS["sgd"], build=build_monitored),
            PLAIN_SGD,
            steps=EVERY,
        ),
        Variant("zero", "strength 0", METHODS["f3eo"], {**PLAIN_SGD, "value": 0.0}),
        _fisher("batch", "batch H·g, decoupled", estimator="batch_exact"),
        _fisher("coupled", "per sample, coupled", **COUPLED),
        _fisher("decoupled", "per sample, decoupled"),
        _fisher("exact", "per sample, double backward", estimator="exact"),
        _fisher("sign", "signs, finite differences", estimator="sign"),
        _fisher("fraction", "per sample, ¼ of the batch", **QUARTER),
        replace(
            _fisher("checked", "the same, checked at every step", **QUARTER),
            method=replace(METHODS["f3eo"], build=_build_checked),
        ),
        _fisher("every", "per sample, every 2nd step", **SECOND),
        _fisher(
            "compiled-coupled", "per sample, coupled, compiled", estimator="compiled", **COUPLED
        ),
        _fisher("compiled", "per sample, decoupled, compiled", estimator="compiled"),
        _fisher("compiled-exact", "double backward, compiled", estimator="compiled_exact"),
        _fisher(
            "compiled-exact-coupled",
            "double backward, coupled, compiled",
            estimator="compiled_exact",
            **COUPLED,
        ),
        _fisher(
            "compiled-exact-fraction",
            "double backward, ¼ of the batch, compiled",
            estimator="compiled_exact",
            **QUARTER,
        ),
        _fisher(
            "compiled-exact-every",
            "double backward, every 2nd step, compiled",
            estimator="compiled_exact",
            **SECOND,
        ),
        _fisher("compiled-fraction", "¼ of the batch, compiled", estimator="compiled", **QUARTER),
        _fisher("compiled-every", "every 2nd step, compiled", estimator="compiled", **SECOND),
    )
}
