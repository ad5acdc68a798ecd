"""Whether products of float32 are rounded to TF32, whose numbers have 10 bits after the point."""

from typing import Any

import torch

DEVICES = {"cuda"}
"""Types of devices that have TF32."""

UNIT = 2.0**-10
"""The rounding unit of TF32."""


def tf32_unit(device: str, *, convolves: bool) -> float:
    """The rounding unit of TF32 where products of float32 use it, else 0.

    Args:
        device: its type, "cpu" or "cuda".
        convolves: whether convolutions are among the products; they have a switch of their own,
            which torch turns on.
    """
    if device not in DEVICES:
        return 0.0
    backends = torch.backends
    matmul = _is_on(backends.cuda.matmul, backends)
    cudnn: Any = backends.cudnn
    convolution = convolves and _is_on(getattr(cudnn, "conv", cudnn), cudnn, backends)
    return UNIT if matmul or convolution else 0.0


def _is_on(switch: Any, *wider: Any) -> bool:
    """Whether a switch is; where it says nothing, those of wider ranges do."""
    if not hasattr(switch, "fp32_precision"):  # torch before 2.9
        return bool(switch.allow_tf32)
    said = [part.fp32_precision for part in (switch, *wider)]
    return next((one for one in said if one != "none"), "ieee") == "tf32"
