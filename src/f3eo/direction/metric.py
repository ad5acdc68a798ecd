"""The diagonal D of a base optimizer's preconditioner, read from its state after its step.

A base moves by −lr · D m, m its (averaged) gradient. The structure term is projected and measured
in D and applied as −lr · D λh⊥ after the base's own step, so it never enters a second moment.

| base | D |
|---|---|
| SGD | identity: the structure term joins the gradient, momentum included |
| Adam, AdamW, NAdam | 1/(√v̂ + ε), v̂ bias-corrected (AMSGrad: its maximum) |
| RAdam | the same times its rectification; identity while that is undefined |
| Adamax | 1/u, u the infinity norm (ε is in it) |
| RMSprop | 1/(√v + ε), centred: v less the squared mean |
| Adagrad | 1/(√G + ε), times its decay of the learning rate |
| SGDScheduleFree (schedulefree) | identity, as SGD |
| any other | unknown |

With an unknown metric (Muon, SOAP, Adadelta, Rprop, …) the structure term is projected in the
Euclidean metric and joins the gradient, so the base's preconditioner may turn a part of it back
into the loss. SOAP's is diagonal in a basis that turns; AdamWScheduleFree's is diagonal, but the
base moves two points, and a term applied after its step would reach only one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

Diagonal = Callable[[dict[str, Any], dict[str, Any]], Tensor]
"""(state of a parameter, its group) → D in the parameter's shape."""

METRICS: dict[type[Optimizer] | str, Diagonal | None] = {
    SGD: None,
    # Its step along the gradient is a number times it, at both of its points.
    "schedulefree.sgd_schedulefree.SGDScheduleFree": None,
}
"""None is the identity; a base that is missing has no known metric."""


def register_metric(*bases: type[Optimizer] | str) -> Callable[[Diagonal], Diagonal]:
    """Use the decorated function for these base optimizers.

    Args:
        bases: optimizer classes, or "module.Class" of one that is not to be imported for this;
            subclasses are not included.
    """

    def decorate(diagonal: Diagonal) -> Diagonal:
        METRICS.update(dict.fromkeys(bases, diagonal))
        return diagonal

    return decorate


@register_metric(Adam, AdamW, NAdam)
def adam(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """1/(√(v/(1 − β₂ᵗ)) + ε)."""
    moment = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    step = state["step"]
    if step.device.type == "cpu":
        step = float(step)  # as a tensor it is float32, in which 1 − β₂ᵗ loses half its digits
    correction = 1 - group["betas"][1] ** step
    return 1 / ((moment / correction).sqrt() + group["eps"])


@register_metric(RAdam)
def radam(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """r √(1 − β₂ᵗ)/(√v + ε) with the rectification r; 1 while ρ_t <= 5."""
    step, beta = float(state["step"]), group["betas"][1]
    correction = 1 - beta**step
    longest = 2 / (1 - beta) - 1
    length = longest - 2 * step * beta**step / correction
    if length <= 5:
        return torch.ones_like(state["exp_avg_sq"])
    rectified = (length - 4) * (length - 2) * longest
    rectified /= (longest - 4) * (longest - 2) * length
    return (rectified * correction) ** 0.5 / (state["exp_avg_sq"].sqrt() + group["eps"])


@register_metric(Adamax)
def adamax(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """1/u."""
    return 1 / state["exp_inf"]


@register_metric(RMSprop)
def rmsprop(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """1/(√v + ε)."""
    moment = state["square_avg"]
    if group["centered"]:
        # As torch computes it: a difference below rounding is negative in both or in neither.
        moment = moment.addcmul(state["grad_avg"], state["grad_avg"], value=-1)
    return 1 / (moment.sqrt() + group["eps"])


@register_metric(Adagrad)
def adagrad(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """1/((1 + (t − 1) decay) (√G + ε))."""
    decay = 1 + (float(state["step"]) - 1) * group["lr_decay"]
    return 1 / decay / (state["sum"].sqrt() + group["eps"])


def is_known(base: Optimizer) -> bool:
    """Whether the base's preconditioner is in the table."""
    return _key(base) in METRICS


def is_diagonal(base: Optimizer) -> bool:
    """Whether the base has a preconditioner that differs from the identity and is known."""
    return METRICS.get(_key(base)) is not None


def metric(base: Optimizer, parameters: list[Tensor]) -> list[Tensor] | None:
    """D for every parameter, after the base's step; None is the identity.

    Args:
        base: the base optimizer.
        parameters: that have just been stepped.
    """
    diagonal = METRICS.get(_key(base))
    if diagonal is None:
        return None
    groups = {id(p): group for group in base.param_groups for p in group["params"]}
    with torch.no_grad():
        return [
            # A parameter that never had a gradient has no state and does not move.
            diagonal(base.state[p], groups[id(p)]) if base.state.get(p) else torch.zeros_like(p)
            for p in parameters
        ]


def _key(base: Optimizer) -> type[Optimizer] | str:
    """How the base is listed: by its class, or by the name of that."""
    kind = type(base)
    return kind if kind in METRICS else f"{kind.__module__}.{kind.__qualname__}"
