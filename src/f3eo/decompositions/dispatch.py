"""Functions of our own that torch function modes can see, like torch's."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def visible(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let modes intercept a function whose tensors are its positional arguments.

    `torch.autograd.Function.apply` is not seen by modes; what it computes would be a constant to
    them.
    """

    @wraps(function)
    def dispatched(*args: Any, **kwargs: Any) -> Tensor:
        tensors = tuple(a for a in args if isinstance(a, Tensor))
        if has_torch_function(tensors):
            return handle_torch_function(dispatched, tensors, *args, **kwargs)
        return function(*args, **kwargs)

    return dispatched


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which autocast wants matrix products with this tensor; its own outside."""
    device = tensor.device.type
    if not torch.is_autocast_enabled(device) or tensor.dtype == torch.float64:
        return tensor.dtype
    return torch.get_autocast_dtype(device)
