"""F3EO: the loss, and the Fisher trace where it does not disturb the descent.

Everything it can be made of is plain data here: base, estimator, rule, and weight are names.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from f3eo import (
    F3EO,
    Cap,
    Categorical,
    Compiled,
    Coupled,
    Decoupled,
    DoubleBackward,
    FiniteDifference,
    Fitted,
    Fixed,
    MiniBatch,
    ModelSampled,
    PerSample,
    Ratio,
    Sign,
)
from f3eo.bench.methods.bases import BASES, build_base
from f3eo.bench.methods.method import Closure, Method, Source, Stepper
from f3eo.extend import DecoupledPerTensor, Direct

ESTIMATORS: Mapping[str, Callable[[float], Any]] = {
    "per_sample": lambda power: PerSample(FiniteDifference(), power=power),
    "exact": lambda power: PerSample(DoubleBackward(), power=power),
    "compiled": lambda power: Compiled(PerSample(FiniteDifference(), power=power)),
    "compiled_exact": lambda power: Compiled(PerSample(DoubleBackward(), power=power)),
    "sign": lambda power: Sign(FiniteDifference()),
    "batch": lambda power: MiniBatch(FiniteDifference()),
    "model_sampled": lambda power: ModelSampled(),
}
"""From the power of the norms, where there is one."""
TRACE_ALONE = ("sign", "batch", "model_sampled")
"""Those without one."""
RULES: Mapping[str, Callable[[], Any]] = {
    "decoupled": Decoupled,
    "per_tensor": DecoupledPerTensor,
    "coupled": Coupled,
    "direct": Direct,
}
WEIGHTS: Mapping[str, Callable[[float], Any]] = {
    "ratio": Ratio,
    "fixed": Fixed,
    "cap": Cap,
    "fitted": Fitted,
}


class FisherStepper(Stepper):
    """F3EO takes the closure and the batch itself."""

    def __init__(self, optimizer: F3EO) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Gradient and trace on one batch, then a step of the base."""
        return self.optimizer.step(closure, x, y)


class SampledLabelsStepper(FisherStepper):
    """The estimator draws labels, and so wants logits: it is given the model's outputs."""

    def __init__(self, optimizer: F3EO, model: nn.Module) -> None:
        super().__init__(optimizer)
        self.model = model
        self._checked = False

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """A step on the cross-entropy of the model's outputs.

        Raises:
            ValueError: the task's loss is another.
        """

        def likelihood(x: Tensor, y: Tensor) -> Categorical:
            return Categorical(self.model(x), y)

        if not self._checked:
            self._check(closure, x, y)
        return self.optimizer.step(likelihood, x, y)

    def _check(self, closure: Closure, x: Tensor, y: Tensor) -> None:
        outputs: list[Tensor] = []  # of the closure's own pass: another may drop other units
        hook = self.model.register_forward_hook(lambda *call: outputs.append(call[-1]))
        with torch.no_grad():
            losses = closure(x, y)
        hook.remove()
        if not torch.allclose(Categorical(outputs[0], y).losses(), losses, rtol=1e-3):
            raise ValueError("estimator model_sampled needs a task whose loss is cross-entropy")
        self._checked = True


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """F3EO around a base; the seed decides on samples, signs and labels that are drawn.

    Raises:
        ValueError: a name nobody knows, or parts that do not fit.
    """
    kind = options["weight"]
    number = options["ratio"] if kind == "ratio" else options["value"]
    optimizer = F3EO(
        model,
        build_base(model, options),
        estimator=_named("estimator", options["estimator"], ESTIMATORS)(options["power"]),
        rule=_named("rule", options["rule"], RULES)(),
        strength=_named("weight", kind, WEIGHTS)(number),
        fraction=options["fraction"],
        every=options["every"],
        generator=torch.Generator().manual_seed(seed),
    )
    if options["estimator"] == "model_sampled":
        return SampledLabelsStepper(optimizer, model)
    return FisherStepper(optimizer)


def idle(options: Mapping[str, Any]) -> dict[str, str]:
    """Options without an effect beside the others: see `Method.idle`."""
    kind, estimator = options["weight"], options["estimator"]
    number, other = ("ratio", "value") if kind == "ratio" else ("value", "ratio")
    cure = "another f3eo.weight" if kind == "ratio" else "f3eo.weight=ratio"
    found = {other: f"the number of weight={kind} is f3eo.{number}; set that, or {cure} with it"}
    if estimator in TRACE_ALONE:
        found["power"] = (
            f"estimator={estimator} knows Tr F alone, which is power 2; leave it out, or take "
            f"f3eo.estimator={' or '.join(name for name in ESTIMATORS if name not in TRACE_ALONE)}"
        )
    if options[number] == 0:
        off = f"with f3eo.{number}=0 nothing is measured; set a number above 0"
        found |= dict.fromkeys(("estimator", "rule", "power", "fraction", "every"), off)
    return found


def _named(part: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
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
        "value": 0.04,
        "fraction": 0.25,
        "every": 5,
        "base": "sgd",
        "estimator": "compiled",
        "power": 1.0,
        "rule": "decoupled",
        "weight": "fitted",
        "ratio": 0.1,
    },
    build=build,
    choices={"base": BASES, "estimator": ESTIMATORS, "rule": RULES, "weight": WEIGHTS},
    idle=idle,
    note="value is the number of all weights but weight=ratio, which has ratio; with "
    "power=1 it is a distance, as the rho of SAM",
)
