"""Weights rounded to few bits, without retraining."""

from collections.abc import Mapping

import torch
from torch import Tensor


def quantised(weights: Mapping[str, Tensor], bits: int) -> dict[str, Tensor]:
    """Every matrix and kernel with its output rows on a symmetric grid of 2^b − 1 points.

    ŵ = s · round(w / s) with s = max |w_row| / (2^(b−1) − 1), halves to the even neighbour. Tensors
    of less than two dimensions (biases, norms) stay as they are, as is usual.

    Args:
        weights: parameters by name; a row is an entry of the first dimension.
        bits: b, at least 2.

    Returns:
        New tensors by name.

    Raises:
        ValueError: bits below 2.

    Source: Nagel et al. 2021, arXiv 2106.08295, section 2.2: symmetric, per channel, min-max range.
    """
    if bits < 2:
        raise ValueError(f"a symmetric grid needs at least 2 bits, got {bits}")
    return {name: _rounded(w, bits) if w.dim() > 1 else w for name, w in weights.items()}


def _rounded(w: Tensor, bits: int) -> Tensor:
    top = 2 ** (bits - 1) - 1
    scale = w.detach().flatten(1).abs().amax(1) / top
    scale = scale.clamp(min=torch.finfo(w.dtype).tiny)  # a row of zeros stays one
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(w.detach(), scale, zero, 0, -top, top)
