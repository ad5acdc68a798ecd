"""F3EO in the loop of Hugging Face Accelerate."""

from typing import Any

import torch
from accelerate.optimizer import (  # pyright: ignore[reportMissingImports]
    AcceleratedOptimizer,
)
from torch import Tensor
from torch.optim import Optimizer

from f3eo.closure.loss_scale import LossScale
from f3eo.closure.problem import Closure
from f3eo.optimizer import F3EO


def backward(optimizer: Optimizer, closure: Closure, *batch: Any) -> Tensor:
    """Measure a micro-batch where the loop has `accelerator.backward(loss)`.

    All else stays as Accelerate has it: `prepare`, `accumulate(model)`, `clip_grad_norm_` and
    `optimizer.step()`, which steps when the last micro-batch is there. The k micro-batches equal
    the one large batch, sample by sample, so the loss is divided by no k.

    Args:
        optimizer: an `F3EO`, as `prepare` has returned it, or as it was before.
        closure, batch: see `F3EO.step`.

    Returns:
        the mean loss of the micro-batch, detached.

    With `mixed_precision="fp16"` F3EO scales its losses by itself (`F3EO(loss_scale=...)`), from
    the numbers of Accelerate's GradScaler, which then has a scale of 1 and skips nothing.

    Raises:
        TypeError: another optimizer.
    """
    own, scaler = optimizer, None
    while isinstance(own, AcceleratedOptimizer):
        own, scaler = own.optimizer, own.scaler or scaler
    if not isinstance(own, F3EO):
        raise TypeError(
            f"backward() needs an F3EO, as accelerator.prepare has returned it, received {own!r}"
        )
    if scaler is not None and scaler.is_enabled():
        _take_over(scaler, own)
    return own.accumulate(closure, *batch)


def _take_over(scaler: Any, optimizer: F3EO) -> None:
    """Leave a GradScaler without effect; an F3EO that has not stepped takes its numbers.

    It stays enabled, so that Accelerate saves and loads it as ever.

    Args:
        scaler: as Accelerate handed it to the optimizer; other optimizers must not share it.
        optimizer: the F3EO.
    """
    if optimizer.neutral_scaler and scaler.get_growth_factor() == 1:
        return
    if scaler.get_growth_factor() != 1 and optimizer.steps + optimizer.skipped == 0:
        optimizer.loss_scale.take(LossScale.of(scaler))
    device = optimizer.param_groups[0]["params"][0].device
    scaler.scale(torch.zeros((), device=device))  # makes the tensor of its scale
    scaler.update(1.0)
    scaler.set_growth_factor(1.0)
    scaler.set_backoff_factor(1.0)
    optimizer.neutral_scaler = True
