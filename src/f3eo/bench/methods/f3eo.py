"""F3EO, with its parts chosen by name: base, estimator, rule and strength."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from f3eo import (
    F3EO,
    ByRow,
    Cap,
    Categorical,
    Compiled,
    Coupled,
    Decoupled,
    DoubleBackward,
    Elementwise,
    Euclidean,
    Factored,
    FiniteDifference,
    Fitted,
    Fixed,
    MiniBatch,
    ModelSampled,
    PerSample,
    Ratio,
    Sensitivity,
    Sign,
)
from f3eo.bench.methods.bases import BASES, build_base
from f3eo.bench.methods.method import Closure, Method, Source, Stepper
from f3eo.control import FreeEnergy, TraceTarget
from f3eo.extend import DecoupledPerTensor, Direct
from f3eo.optimizer.defaults import default_limit

PER_SAMPLE: Mapping[str, Callable[..., Any]] = {
    "per_sample": lambda **parts: PerSample(FiniteDifference(), **parts),
    "exact": lambda **parts: PerSample(DoubleBackward(), **parts),
    "compiled": lambda **parts: Compiled(PerSample(FiniteDifference(), **parts)),
    "compiled_exact": lambda **parts: Compiled(PerSample(DoubleBackward(), **parts)),
}
"""Per-sample estimators, from metric, power and whether residuals are held."""
TRACE_ONLY: Mapping[str, Callable[[], Any]] = {
    "sign": lambda: Sign(FiniteDifference()),
    "batch": lambda: MiniBatch(FiniteDifference()),
    "batch_exact": lambda: MiniBatch(DoubleBackward()),
    "model_sampled": ModelSampled,
}
"""Estimators of Tr F, which is p = 2 in the Euclidean metric; they take no such parts."""
ESTIMATORS = {**PER_SAMPLE, **TRACE_ONLY}
METRICS: Mapping[str, Callable[[], Any]] = {
    "euclidean": Euclidean,
    "rows": ByRow,
    "factored": Factored,
    "elementwise": Elementwise,
}
RESIDUALS: Mapping[str, bool] = {"free": False, "held": True}
RULES: Mapping[str, Callable[[], Any]] = {
    "decoupled": Decoupled,
    "per_tensor": DecoupledPerTensor,
    "coupled": Coupled,
    "direct": Direct,
}
STRENGTHS: Mapping[str, Callable[[float, float], Any]] = {
    "ratio": lambda value, limit: Ratio(value),
    "fixed": lambda value, limit: Fixed(value),
    "cap": Cap,
    "fitted": Fitted,
    "sensitivity": lambda value, limit: Sensitivity(value, limit=limit, rest=0),
    "trace_target": lambda value, limit: TraceTarget(value, limit=limit),
    "free_energy": lambda value, limit: FreeEnergy(int(value), limit=limit),
}
"""By name, from value and limit. None rests: a step must have a price before the run."""
UNLIMITED = ("ratio", "fixed")
"""Strengths that have no limit."""


class FisherStepper(Stepper):
    """F3EO takes closure and batch in its step."""

    def __init__(self, optimizer: F3EO) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """See `F3EO.step`."""
        return self.optimizer.step(closure, x, y)


class SampledLabelsStepper(FisherStepper):
    """F3EO with labels drawn from the model; its closure returns a `Categorical` of the logits."""

    def __init__(self, optimizer: F3EO, model: nn.Module) -> None:
        super().__init__(optimizer)
        self.model = model
        self._checked = False

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One step on the cross-entropy of the model's logits.

        Raises:
            ValueError: the task's loss is not this cross-entropy.
        """

        def likelihood(x: Tensor, y: Tensor) -> Categorical:
            return Categorical(self.model(x), y)

        if not self._checked:
            self._check(closure, x, y)
        return self.optimizer.step(likelihood, x, y)

    def _check(self, closure: Closure, x: Tensor, y: Tensor) -> None:
        outputs: list[Tensor] = []  # from the closure's own pass, which has its own dropout mask
        hook = self.model.register_forward_hook(lambda *call: outputs.append(call[-1]))
        with torch.no_grad():
            losses = closure(x, y)
        hook.remove()
        if not torch.allclose(Categorical(outputs[0], y).losses(), losses, rtol=1e-3):
            raise ValueError("estimator model_sampled needs a task whose loss is cross-entropy")
        self._checked = True


def build(model: nn.Module, options: Mapping[str, Any], seed: int, **parts: Any) -> FisherStepper:
    """F3EO around a base; `seed` seeds the generator of samples, signs and labels.

    Args:
        model, options, seed: see `Method`.
        parts: further arguments of F3EO that no option names, such as `past`.

    Raises:
        ValueError: an unknown name, or parts that do not fit together.
    """
    base = build_base(model, options)
    optimizer = F3EO(
        model,
        base,
        estimator=_estimator(options),
        rule=_named("rule", options["rule"], RULES)(),
        strength=_strength(options, base),
        fraction=options["fraction"],
        every=options["every"],
        generator=torch.Generator().manual_seed(seed),
        **parts,
    )
    if options["estimator"] == "model_sampled":
        return SampledLabelsStepper(optimizer, model)
    return FisherStepper(optimizer)


def idle(options: Mapping[str, Any]) -> dict[str, str]:
    """Options that have no effect beside the others; see `Method.idle`."""
    kind, estimator = options["strength"], options["estimator"]
    number, other = ("ratio", "value") if kind == "ratio" else ("value", "ratio")
    cure = "another f3eo.strength" if kind == "ratio" else "f3eo.strength=ratio"
    found = {other: f"the number of strength={kind} is f3eo.{number}; set that, or {cure} with it"}
    if kind in UNLIMITED:
        found["limit"] = f"strength={kind} has no limit; choose f3eo.strength=cap or fitted with it"
    if estimator in TRACE_ONLY:
        reason = (
            f"estimator={estimator} measures Tr F, which is power 2 in the Euclidean metric; leave "
            f"it out, or choose f3eo.estimator={' or '.join(PER_SAMPLE)}"
        )
        found |= dict.fromkeys(("power", "metric", "residuals"), reason)
    if options["rule"] == "direct":
        found["every"] = "rule=direct measures at every step; choose another f3eo.rule with it"
    if options[number] == 0:
        off = f"with f3eo.{number}=0 nothing is measured; set a number above 0"
        parts = ("estimator", "rule", "power", "metric", "residuals", "limit", "fraction", "every")
        found |= dict.fromkeys(parts, off)
    return found


def _estimator(options: Mapping[str, Any]) -> Any:
    name = options["estimator"]
    make = _named("estimator", name, ESTIMATORS)
    if name in TRACE_ONLY:
        return make()
    return make(
        power=options["power"],
        metric=_named("metric", options["metric"], METRICS)(),
        hold_residuals=_named("residuals", options["residuals"], RESIDUALS),
    )


def _strength(options: Mapping[str, Any], base: Optimizer) -> Any:
    kind, limit = options["strength"], options["limit"]
    make = _named("strength", kind, STRENGTHS)
    if limit is None:
        limit = default_limit(base) if kind == "sensitivity" else 1.0
    return make(options["ratio"] if kind == "ratio" else options["value"], limit)


def _named(part: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"unknown {part} {name!r}; choose from {', '.join(known)}")
    return known[name]


METHOD = Method(
    name="f3eo",
    label="F3EO",
    colour="#c2185b",
    order=3,
    kind="Fisher trace",
    needs="per-sample losses",
    source=Source("f3eo", "f3eo.F3EO", "f3eo"),
    defaults={
        **BASES["sgd"].defaults,
        "value": 1.0,
        "limit": None,
        "fraction": 0.25,
        "every": 5,
        "base": "sgd",
        "estimator": "per_sample",
        "power": 1.0,
        "metric": "rows",
        "residuals": "held",
        "rule": "decoupled",
        "strength": "sensitivity",
        "ratio": 0.1,
    },
    build=build,
    choices={
        "base": BASES,
        "estimator": ESTIMATORS,
        "metric": METRICS,
        "residuals": RESIDUALS,
        "rule": RULES,
        "strength": STRENGTHS,
    },
    idle=idle,
    note="the number of strength=ratio is ratio, that of every other strength is value; with "
    "power=1 value is a distance, like SAM's rho; with trace_target it is the trace's target, with "
    "free_energy the number of training samples; limit is by default that of the strength and base",
)
