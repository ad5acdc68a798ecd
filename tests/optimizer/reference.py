"""The whole method on one long vector, from the dense truth; shares no code with f3eo."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from dense import truth


@dataclass(frozen=True)
class Seen:
    """What λ may depend on: ‖g‖ and ‖d‖ in the metric of the base, L, Tr(D F D), the step."""

    g: Tensor
    d: Tensor
    loss: float
    trace: float
    step: int


@dataclass(frozen=True)
class Method:
    """How h is measured and joins.

    Args:
        strength: λ.
        power: p.
        by_rows: whether D is the root mean square of each row of a matrix, and |θ| for vectors.
        held: whether ∂ℓ_i/∂f_i is constant.
        projected: "all" takes from h its part along g, "tensors" does so for each tensor.
        every: steps from one measurement to the next.
    """

    strength: Callable[[Seen], Any]
    power: float = 1.0
    by_rows: bool = False
    held: bool = False
    projected: str = "all"
    every: int = 1


def sensitivity(s: Seen) -> float:
    """min(1, (√Tr(D F D)/L)⁴), and no longer than 0.3 g."""
    return min(min(1.0, (s.trace**0.5 / s.loss) ** 4), 0.3 * float(s.g / s.d))


DEFAULT = Method(sensitivity, by_rows=True, held=True)
"""The default of F3EO, with h from the whole batch at every step."""


@dataclass(frozen=True)
class Step:
    """One step: λ (None where h is not measured), and how long λ d is beside g."""

    loss: float
    trace: float | None
    strength: float | None
    ratio: float | None
    theta: Tensor


def sgd(lr: float, momentum: float = 0.0, decay: float = 0.0) -> Any:
    """θ ← θ − lr m, m ← μ m + g + λ d + wd θ; the metric is the identity."""

    def base(theta: Tensor, g: Tensor, state: dict[str, Any]) -> tuple[Any, Any]:
        def apply(term: Tensor | float) -> Tensor:
            total = g + term + decay * theta
            state["m"] = momentum * state.get("m", 0.0) + total
            return theta - lr * state["m"]

        return torch.ones_like(g), apply

    return base


def adamw(lr: float, decay: float = 0.0) -> Any:
    """AdamW on g, then θ ← θ − lr λ d/(√v̂ + ε)."""

    def base(theta: Tensor, g: Tensor, state: dict[str, Any]) -> tuple[Any, Any]:
        t = state["t"] = state.get("t", 0) + 1
        state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
        state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g**2
        metric = 1 / ((state["v"] / (1 - 0.999**t)).sqrt() + 1e-8)

        def apply(term: Tensor | float) -> Tensor:
            mean = state["m"] / (1 - 0.9**t)
            return (1 - lr * decay) * theta - lr * metric * (mean + term)

        return metric, apply

    return base


def diagonal(parameters: Any) -> Tensor:
    """D: √(mean of θ² over a row's places) for matrices and filters, |θ| for vectors."""
    found = []
    for p in parameters:
        size = p.detach().abs()
        if p.ndim > 1:
            for row, values in zip(size, p.detach(), strict=True):
                row.fill_(values.square().mean().sqrt())
        found.append(size.reshape(-1))
    return torch.cat(found)


def run(model: nn.Module, closure: Any, data: Any, base: Any, method: Method) -> Iterator[Step]:
    """θ ← base(θ, g + k λ d) at every k-th step, θ ← base(θ, g) between."""
    parameters = list(model.parameters())
    sizes = [p.numel() for p in parameters]
    theta, state, trace = parameters_to_vector(parameters).detach().clone(), {}, None
    for step, batch in enumerate(data):
        vector_to_parameters(theta, parameters)
        size = diagonal(parameters) if method.by_rows else torch.ones_like(theta)
        options = {"power": method.power, "diagonal": size, "held": method.held}
        here = truth(model, closure, *batch, **options)
        g, loss = here.gradient, float(here.losses.mean())
        metric, apply = base(theta, g, state)
        if step % method.every:
            theta = apply(0.0)
            yield Step(loss, trace, None, None, theta)
            continue
        trace = float((size * here.gradients).square().sum(1).mean())
        d = here.structure.clone()
        parts = sizes if method.projected == "tensors" else [len(theta)]
        if method.projected:
            for a, b, m in zip(d.split(parts), g.split(parts), metric.split(parts), strict=True):
                a -= (a @ (m * b)) / (b @ (m * b)) * b
        lengths = ((g @ (metric * g)).sqrt(), (d @ (metric * d)).sqrt())
        strength = float(method.strength(Seen(*lengths, loss, trace, step)))
        theta = apply(method.every * strength * d)
        yield Step(loss, trace, strength, strength * float(lengths[1] / lengths[0]), theta)
