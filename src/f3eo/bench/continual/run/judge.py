"""The model on test sets, judged without a trace: mode, random numbers and parameters stay."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from f3eo.bench.tasks import Samples

CHUNK = 500
"""Samples in a forward pass; bounds memory."""

PerSample = Callable[[Tensor, Tensor], Tensor]
"""(outputs, y) -> (N,), a loss or a score of every sample."""


class Judged(NamedTuple):
    """The mean score, and the mean loss in nats."""

    score: float
    loss: float


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; every module's own mode and torch's random state come back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def judge(model: nn.Module, loss: PerSample, score: PerSample, samples: Samples) -> Judged:
    """Mean score and loss over samples, in the mode that the model is in.

    Args:
        model: (B, …) -> outputs.
        loss, score: those of the stream.
        samples: judged in chunks of CHUNK.
    """
    losses, scores = list[Tensor](), list[Tensor]()
    for x, y in zip(samples.x.split(CHUNK), samples.y.split(CHUNK), strict=True):
        outputs = model(x)
        losses.append(loss(outputs, y).double())
        scores.append(score(outputs, y).double())
    return Judged(*(float(torch.cat(values).mean()) for values in (scores, losses)))
