"""Sums over batches in float64, in the shapes of parameters."""

import torch
from torch import Tensor


def zeros(parameter: Tensor) -> Tensor:
    """0 in the parameter's shape, in float64, on its device, or the CPU if that lacks the type."""
    device = torch.device("cpu") if parameter.device.type == "mps" else parameter.device
    return torch.zeros(parameter.shape, dtype=torch.float64, device=device)


def add(total: Tensor, values: Tensor | None, factor: float = 1.0) -> None:
    """total ← total + factor · values; None counts as 0, and so does 0 · NaN, a mean over none."""
    if values is not None and factor:
        total.add_(values.detach().to(total.device).to(total.dtype), alpha=factor)


def host(values: Tensor) -> Tensor:
    """Detached, in float64 on the CPU, for numbers a sample."""
    return values.detach().cpu().double()
