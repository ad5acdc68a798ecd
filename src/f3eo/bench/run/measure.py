"""What is measured of a model, during a run and at its end; nothing here draws or trains."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from f3eo import fisher_trace
from f3eo.bench.run.calibration import calibration_error
from f3eo.bench.run.eigenvalue import top_eigenvalue
from f3eo.bench.tasks import Samples

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits, y) -> per-sample losses (N,)."""

CHUNK = 250
"""Samples at a time, so that memory stays small."""

SHARP = 200
"""Samples of the probe, the first of them, for the Hessian's eigenvalue."""


class Tested(NamedTuple):
    """The mean loss in nats, the share of right answers, and the logits they came from."""

    loss: float
    accuracy: float
    logits: Tensor


def measure(model: nn.Module, loss: Loss, probe: Samples, test: Samples) -> dict[str, float]:
    """A point on the curve: loss and accuracy on the test, loss and exact Tr F on the probe.

    Args:
        model: left in training mode.
        loss: see `Loss`.
        probe: training samples.
        test: unseen samples. With labels (N, T) accuracy is that of every position.

    Returns:
        `train_loss`, `test_loss` (nats), `test_accuracy` (in [0, 1]) and `fisher_trace`; the first
        and last are NaN if the test loss is no finite number.
    """
    model.eval()
    tested = _tested(model, loss, test)
    # Else there is no gradient to speak of.
    finite = math.isfinite(tested.loss)
    train_loss, trace = _trained(model, loss, probe) if finite else (math.nan, math.nan)
    model.train()
    return {
        "train_loss": train_loss,
        "test_loss": tested.loss,
        "test_accuracy": tested.accuracy,
        "fisher_trace": trace,
    }


def conclude(
    model: nn.Module, loss: Loss, probe: Samples, test: Samples, point: dict[str, float]
) -> dict[str, float | None]:
    """What is measured once, at the end.

    Args:
        model, loss, probe, test: as for `measure`, but all of the test.
        point: the last on the curve, for what is not measured again.

    Returns:
        `train_loss` and `fisher_trace` of the point; `test_loss`, `test_accuracy`,
        `calibration_error` (see `f3eo.bench.run.calibration`); `gap`, test less training loss;
        `top_eigenvalue` of the Hessian of the mean loss on the probe's first 200 samples, None if
        it is not found.
    """
    model.eval()
    tested = _tested(model, loss, test)
    sharp = Samples(probe.x[:SHARP], probe.y[:SHARP])
    eigenvalue = top_eigenvalue(model, lambda x, y: loss(model(x), y), *sharp)
    model.train()
    return {
        "train_loss": point["train_loss"],
        "test_loss": tested.loss,
        "test_accuracy": tested.accuracy,
        "fisher_trace": point["fisher_trace"],
        "calibration_error": calibration_error(tested.logits, test.y),
        "top_eigenvalue": eigenvalue,
        "gap": tested.loss - point["train_loss"],
    }


@torch.no_grad()
def _tested(model: nn.Module, loss: Loss, test: Samples) -> Tested:
    logits = torch.cat([model(x) for x in test.x.split(CHUNK)])
    right = (logits.argmax(-1) == test.y).double().mean().item()
    return Tested(loss(logits, test.y).mean().item(), right, logits)


def _trained(model: nn.Module, loss: Loss, probe: Samples) -> tuple[float, float]:
    """Mean loss and Tr F, which is a mean over samples too, so that chunks add up to it."""
    loss_sum = trace_sum = 0.0
    for x, y in zip(probe.x.split(CHUNK), probe.y.split(CHUNK), strict=True):
        losses, trace = fisher_trace(
            model, lambda x, y: loss(model(x), y), x, y, differentiable=False
        )
        loss_sum += losses.sum().item()
        trace_sum += trace.item() * len(losses)
    return loss_sum / len(probe.y), trace_sum / len(probe.y)
