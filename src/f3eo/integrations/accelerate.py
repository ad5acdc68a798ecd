"""F3EO in the loop of Hugging Face Accelerate."""

from typing import Any

from accelerate.optimizer import (  # pyright: ignore[reportMissingImports]
    AcceleratedOptimizer,
)
from torch import Tensor
from torch.optim import Optimizer

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

    Raises:
        TypeError: another optimizer.
        RuntimeError: a loss scale, as of `mixed_precision="fp16"`.
    """
    own, scaler = optimizer, None
    while isinstance(own, AcceleratedOptimizer):
        own, scaler = own.optimizer, own.scaler or scaler
    if not isinstance(own, F3EO):
        raise TypeError(
            f"backward() needs an F3EO, as accelerator.prepare has returned it, received {own!r}"
        )
    if scaler is not None and scaler.is_enabled():
        raise RuntimeError(
            'F3EO does not work with the loss scale of mixed_precision="fp16": use "bf16" or "no"'
        )
    return own.accumulate(closure, *batch)
