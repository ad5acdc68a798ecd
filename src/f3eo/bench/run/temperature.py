"""Temperature scaling: one number that makes the confidence of a trained classifier fit."""

import math

from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from f3eo.bench.run.calibration import calibration_error

LIMIT = 100.0
"""Temperatures are searched from 1 / LIMIT to LIMIT."""

MOST = 20_000
"""Most labels a temperature is fitted on; bounds the time of a text."""


def fit_temperature(logits: Tensor, y: Tensor) -> float:
    """T = argmin_T −(1/n) Σ_i log softmax(z_i / T)[y_i], by Brent's method on log T.

    The objective is convex in 1/T, so its only minimum is found. A model that is always right has
    no finite one from below: T is then 1 / LIMIT.

    Args:
        logits: z, (..., C).
        y: labels (...).

    Returns:
        T in [1 / LIMIT, LIMIT].

    Source: Guo et al. 2017, arXiv 1706.04599, section 4.2.
    """
    z, labels = logits.flatten(0, -2)[:MOST].double(), y.flatten()[:MOST]

    def objective(log_t: float) -> float:
        return F.cross_entropy(z * math.exp(-log_t), labels).item()

    reach = math.log(LIMIT)
    found = minimize_scalar(
        objective, bounds=(-reach, reach), method="bounded", options={"xatol": 1e-4}
    )
    return math.exp(found.x)


def temperature_scaled(logits: Tensor, y: Tensor) -> dict[str, float]:
    """Calibration error and loss after temperature scaling.

    T is fitted on every second sample (the first, third, …) and judged on the others: a result is
    trained on all training samples, so none is held out.

    Args:
        logits: (N, …, C), N ≥ 2.
        y: labels (N, …).

    Returns:
        `temperature`; `scaled_calibration_error` (`f3eo.bench.run.calibration`) and `scaled_loss`,
        the mean cross-entropy in nats, of logits / T on the judged half.
    """
    temperature = fit_temperature(logits[::2], y[::2])
    z, labels = logits[1::2] / temperature, y[1::2]
    return {
        "temperature": temperature,
        "scaled_calibration_error": calibration_error(z, labels),
        "scaled_loss": F.cross_entropy(z.flatten(0, -2).double(), labels.flatten()).item(),
    }
