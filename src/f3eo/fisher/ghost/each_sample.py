"""A function of one sample, applied to every sample of a batch."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from f3eo.fisher.ghost.symbolic_sizes import has_fixed_shape


def each_sample(
    function: Callable[..., Any],
    arguments: Sequence[list[Tensor]],
    shared: Iterable[Tensor] = (),
    *,
    randomness: str = "error",
) -> Any:
    """The results for all samples, stacked in dimension 0, by `torch.func.vmap`.

    In a recording for many lengths (`f3eo.fisher.symbols`) samples go one by one: some
    batching rules would bind the recording to the length at hand.

    Args:
        function: takes the same lists with one sample's tensors, and returns a tensor or several.
        arguments: lists of tensors, (B, …) each.
        shared: tensors that the function reads besides, for their shapes.
        randomness: see `torch.func.vmap`.
    """
    tensors = [t for own in arguments for t in own]
    if has_fixed_shape(*tensors, *shared):
        with without_loop_warnings():
            return vmap(function, randomness=randomness)(*arguments)
    singles = [
        function(*([t[i] for t in own] for own in arguments)) for i in range(len(tensors[0]))
    ]
    if isinstance(singles[0], Tensor):
        return torch.stack(singles)
    return tuple([torch.stack(own) for own in zip(*singles, strict=True)])


@contextmanager
def without_loop_warnings() -> Iterator[None]:
    """Silence vmap where it loops over samples: the result is exact, and its cost is logged."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield
