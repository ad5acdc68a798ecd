"""The slow, dense truth: one sample at a time, plain autograd, any precision; shares no code with "
"f3eo."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Truth:
    """Per-sample gradients (B, P) of all parameters in a row, and what follows from them."""

    losses: Tensor
    gradients: Tensor
    structure: Tensor

    @property
    def squared_norms(self) -> Tensor:
        return self.gradients.square().sum(1)

    @property
    def trace(self) -> Tensor:
        return self.squared_norms.mean()

    @property
    def gradient(self) -> Tensor:
        return self.gradients.mean(0)


class Differentiable(TorchFunctionMode):
    """A forward pass whose second derivatives are right: torch's of weight norm are not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch._weight_norm:
            v, g, dim = args
            others = [d for d in range(v.ndim) if d != dim]
            return g * v / v.square().sum(others, keepdim=True).sqrt()
        return func(*args, **(kwargs or {}))


def truth(
    model: nn.Module | Sequence[Tensor],
    closure: Callable[..., Tensor],
    *batch: Tensor,
    power: float = 2,
    diagonal: Tensor | float = 1.0,
    held: bool = False,
) -> Truth:
    """Every ∇ℓ_i from a forward pass of its own, h = (1/B) Σ_i ‖D ∇ℓ_i‖^(p−2) H_i D² ∇ℓ_i from two.

    `diagonal` is D of all parameters in a row, constant. With `held`, ∂ℓ_i/∂f_i is constant, too, f
    what the module returns: H_i = Σ_c (∂ℓ_i/∂f_ic) ∇²f_ic.
    """
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else list(model)
    parameters = [p for p in parameters if p.requires_grad]
    count = len(batch[0])
    losses, gradients = [], []
    structure = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
    for i in range(count):
        with sdpa_kernel(SDPBackend.MATH), Differentiable():
            sample = [t[i : i + 1] for t in batch]
            if held:
                loss, f = _with_output(model, closure, sample)
                (residuals,) = torch.autograd.grad(loss, f, retain_graph=True)
                linear = (residuals * f).sum()
            else:
                loss = linear = closure(*sample).mean()
        g = flat(torch.autograd.grad(linear, parameters, **_graph))
        if g.requires_grad and (diagonal * g).any():  # ‖0‖⁻¹ · 0 is none
            moved = diagonal * g.detach()
            along = diagonal * moved * moved.norm() ** (power - 2) / count
            structure += flat(torch.autograd.grad(g, parameters, along, **_unused))
        losses.append(loss.detach())
        gradients.append(g.detach())
    return Truth(torch.stack(losses), torch.stack(gradients), structure)


def _with_output(model: Any, closure: Callable[..., Tensor], batch: Sequence[Tensor]) -> Any:
    """The mean loss, and what the module returned on the way to it."""
    seen = []
    with model.register_forward_hook(lambda _, given, output: seen.append(output)):
        return closure(*batch).mean(), seen[-1]


def hessian(parameters: Sequence[Tensor], value: Tensor) -> Tensor:
    """∇² of a scalar, dense (P, P)."""
    g = flat(torch.autograd.grad(value, parameters, **_graph))
    rows = [flat(torch.autograd.grad(x, parameters, retain_graph=True, **_unused)) for x in g]
    return torch.stack(rows)


def flat(tensors: Sequence[Tensor | None]) -> Tensor:
    """All tensors in a row."""
    return torch.cat([t.reshape(-1) for t in tensors if t is not None])


def relative(a: Tensor, b: Tensor) -> float:
    """‖a − b‖/‖b‖."""
    return float((a.detach() - b.detach()).norm() / b.detach().norm())


_unused = {"allow_unused": True, "materialize_grads": True}
_graph = {"create_graph": True, **_unused}
