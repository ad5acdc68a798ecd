"""Runs a closure with the modules inside their DistributedDataParallel wrappers.

A wrapper sends buffers before a forward pass and prepares its own sums of gradients for a
`backward()`, which does not come: gradients are summed once, by the step.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def unwrapped() -> AbstractContextManager[None]:
    """Context in which a call of any wrapper is one of its module, on this process alone.

    Raises:
        RuntimeError: in the context, at a wrapper that does more than to sum gradients.
    """
    if not dist.is_available() or not dist.is_initialized():
        return nullcontext()  # no wrapper can be there
    return _replaced()


def inside(model: nn.Module) -> nn.Module:
    """The module inside a wrapper; a model that is no wrapper is itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def _replaced() -> Iterator[None]:
    original = DistributedDataParallel.forward
    DistributedDataParallel.forward = _forward  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        DistributedDataParallel.forward = original


def _forward(wrapper: Any, *inputs: Any, **kwargs: Any) -> Any:
    if wrapper._join_config.enable:
        raise RuntimeError(
            "join() counts passes of the wrapper, which F3EO does not use: leave it out, and give "
            "a process that has no samples left batches of none, step(closure, x[:0], y[:0])"
        )
    if wrapper.mixed_precision is not None:
        raise RuntimeError(
            "DistributedDataParallel(mixed_precision=…) keeps copies of the parameters that F3EO "
            "does not see: use torch.autocast in the closure"
        )
    if wrapper.device_ids:
        moved = wrapper.to_kwargs(inputs, kwargs, wrapper.device_ids[0])
        inputs, kwargs = (one[0] for one in moved)
    return wrapper.module(*inputs, **kwargs)
