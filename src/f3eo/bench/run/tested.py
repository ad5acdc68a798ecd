"""The logits of a model on samples, in chunks, and the loss and accuracy they give."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from f3eo.bench.tasks import Samples

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits, y) -> per-sample losses (N,)."""

CHUNK = 250
"""Samples in a forward pass; bounds memory."""


class Tested(NamedTuple):
    """The mean loss in nats, the accuracy in [0, 1], and the logits (N, …, C)."""

    loss: float
    accuracy: float
    logits: Tensor


@torch.no_grad()
def tested(predict: Callable[[Tensor], Tensor], loss: Loss, samples: Samples) -> Tested:
    """Judge predictions; with labels (N, T) accuracy is the mean over positions.

    Args:
        predict: inputs (B, …) -> logits (B, …, C), e.g. a model in evaluation mode.
        loss: see `Loss`.
        samples: judged in chunks of CHUNK.
    """
    logits = torch.cat([predict(x) for x in samples.x.split(CHUNK)])
    accuracy = (logits.argmax(-1) == samples.y).double().mean().item()
    return Tested(loss(logits, samples.y).mean().item(), accuracy, logits)
