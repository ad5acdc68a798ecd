"""Calibration: whether the confidence of a classifier equals its accuracy."""

import torch
from torch import Tensor

BINS = 15


def calibration_error(logits: Tensor, y: Tensor, bins: int = BINS) -> float:
    """Expected calibration error, Σ_b (n_b / n) |accuracy_b − confidence_b|.

    Predictions are binned by their confidence, the largest probability; bin b of B holds those in
    ((b − 1)/B, b/B].

    Args:
        logits: (..., C).
        y: labels (...).
        bins: number B of bins; default 15.

    Returns:
        A number in [0, 1].

    Source: Guo et al. 2017, arXiv 1706.04599.
    """
    confidence, prediction = logits.double().softmax(-1).max(-1)
    excess = (prediction == y).double() - confidence
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    sums = torch.zeros(bins, dtype=torch.float64, device=logits.device)
    sums.index_add_(0, index.flatten(), excess.flatten())
    return (sums.abs().sum() / y.numel()).item()
