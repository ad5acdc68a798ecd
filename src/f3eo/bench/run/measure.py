"""Measurements of a model, during a run and at its end; none draws random numbers or trains."""

import math
from collections.abc import Sequence

from torch import nn

from f3eo import fisher_trace
from f3eo.bench.run.calibration import calibration_error
from f3eo.bench.run.eigenvalue import top_eigenvalue
from f3eo.bench.run.robustness import robustness
from f3eo.bench.run.temperature import temperature_scaled
from f3eo.bench.run.tested import CHUNK, Loss, tested
from f3eo.bench.tasks import Samples
from f3eo.bench.tasks.corruption import Corruption

SHARP = 200
"""Number of probe samples for the Hessian's largest eigenvalue."""


def measure(model: nn.Module, loss: Loss, probe: Samples, test: Samples) -> dict[str, float]:
    """A point on the curve: loss and accuracy on test samples, loss and exact Tr F on the probe.

    Args:
        model: the model, which is left in training mode.
        loss: see `Loss`.
        probe: training samples.
        test: test samples. With labels (N, T) accuracy is the mean over positions.

    Returns:
        `train_loss`, `test_loss` (nats), `test_accuracy` (in [0, 1]) and `fisher_trace`;
        `train_loss` and `fisher_trace` are NaN if the test loss is not finite.
    """
    model.eval()
    end = tested(model, loss, test)
    finite = math.isfinite(end.loss)
    train_loss, trace = _trained(model, loss, probe) if finite else (math.nan, math.nan)
    model.train()
    return {
        "train_loss": train_loss,
        "test_loss": end.loss,
        "test_accuracy": end.accuracy,
        "fisher_trace": trace,
    }


def conclude(
    model: nn.Module,
    loss: Loss,
    probe: Samples,
    test: Samples,
    point: dict[str, float],
    corruptions: Sequence[Corruption] = (),
) -> dict[str, float | None]:
    """Values at the end of a run.

    Args:
        model, loss, probe: as for `measure`.
        test: all test samples.
        point: the last point on the curve; gives the values that are not measured again.
        corruptions: of the inputs, for `f3eo.bench.run.robustness`; default none.

    Returns:
        `train_loss` and `fisher_trace` of the point; `test_loss`, `test_accuracy`;
        `calibration_error` (see `f3eo.bench.run.calibration`), and what is left of it after
        temperature scaling (`f3eo.bench.run.temperature`); `gap`, test loss minus training loss;
        `top_eigenvalue` of the Hessian of the mean loss on the first 200 probe samples, None if
        Lanczos does not converge; and the entries of `f3eo.bench.run.robustness`, on the first
        1,000 test samples.
    """
    model.eval()
    end = tested(model, loss, test)
    sharp = Samples(probe.x[:SHARP], probe.y[:SHARP])
    eigenvalue = top_eigenvalue(model, lambda x, y: loss(model(x), y), *sharp)
    disturbed = robustness(model, loss, test, corruptions)
    model.train()
    return {
        "train_loss": point["train_loss"],
        "test_loss": end.loss,
        "test_accuracy": end.accuracy,
        "fisher_trace": point["fisher_trace"],
        "calibration_error": calibration_error(end.logits, test.y),
        "top_eigenvalue": eigenvalue,
        "gap": end.loss - point["train_loss"],
        **temperature_scaled(end.logits, test.y),
        **disturbed,
    }


def _trained(model: nn.Module, loss: Loss, probe: Samples) -> tuple[float, float]:
    """Mean loss and Tr F; both are means over samples, so chunks are averaged by their sizes."""
    loss_sum = trace_sum = 0.0
    for x, y in zip(probe.x.split(CHUNK), probe.y.split(CHUNK), strict=True):
        losses, trace = fisher_trace(
            model, lambda x, y: loss(model(x), y), x, y, differentiable=False
        )
        loss_sum += losses.sum().item()
        trace_sum += trace.item() * len(losses)
    return loss_sum / len(probe.y), trace_sum / len(probe.y)
