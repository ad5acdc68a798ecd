"""Makes functions of this package visible to torch function modes."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def visible(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let modes intercept the decorated function; its tensors are positional arguments.

    Modes do not see `torch.autograd.Function.apply` and would take its result for a constant.
    """

    @wraps(function)
    def dispatched(*args: Any, **kwargs: Any) -> Tensor:
        tensors = tuple(a for a in args if isinstance(a, Tensor))
        if has_torch_function(tensors):
            return handle_torch_function(dispatched, tensors, *args, **kwargs)
        return function(*args, **kwargs)

    return dispatched


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which autocast multiplies this tensor; its own dtype without autocast."""
    device = tensor.device.type
    if not torch.is_autocast_enabled(device) or tensor.dtype == torch.float64:
        return tensor.dtype
    return torch.get_autocast_dtype(device)
