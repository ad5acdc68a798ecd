"""Batches: nested mappings, tuples and lists of tensors that hold one sample a row.

In the nesting

- a tensor of one dimension or more holds one sample a row; a scalar tensor is a constant;
- a list of mappings with tensors among their values holds one sample a mapping, not collated; their
  shapes may differ. Collated mappings stand in a tuple instead;
- a list or tuple without tensors that is as long as the batch holds one constant a sample, such as
  strings, ids or lists of words. A tuple of numbers is an exception and a constant, since sizes and
  ranges are such tuples; a list of numbers is not. Of nested lists the outermost one counts;
- everything else is a constant.

A part of a batch has the selected samples and all constants.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

NUMBERS = (type(None), bool, int, float, complex)
CONSTANTS = (*NUMBERS, str, bytes)


def tensors(batch: Any) -> list[Tensor]:
    """All tensors of a batch, depth first.

    Raises:
        TypeError: the batch holds an object that is no nesting, tensor, number or string.
    """
    return list(_iterate_tensors(batch))


def _iterate_tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (Mapping, tuple, list)):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _iterate_tensors(value)
    elif not isinstance(batch, CONSTANTS):
        raise TypeError(
            f"a batch holds tensors in tuples, lists and mappings (numbers, strings and None are "
            f"constants), received a {type(batch).__name__}; pass its tensors instead (of an array "
            f"torch.as_tensor(array), of a dataclass vars(batch))"
        )


def _holds_tensor(batch: Any) -> bool:
    return any(True for _ in _iterate_tensors(batch))


def map_samples(function: Callable[[Any], Any], batch: Any) -> Any:
    """Apply a function to everything that holds samples, and keep nesting and constants.

    Args:
        function: takes a tensor with the samples in dimension 0, or a list or tuple with one entry
            a sample.
        batch: the nesting.
    """
    return _map(function, batch, size(batch))


def _map(function: Callable[[Any], Any], batch: Any, count: int | None) -> Any:
    if isinstance(batch, Tensor):
        return function(batch) if batch.ndim else batch
    if _is_list_of_samples(batch) or _is_list_of_constants(batch, count):
        return function(batch)
    return map_items(lambda value: _map(function, value, count), batch)


def map_items(function: Callable[[Any], Any], batch: Any) -> Any:
    """Apply a function to every item of a mapping, tuple or list, and keep its type.

    Args:
        function: takes one item.
        batch: the nesting; anything else is returned as it is.
    """
    if isinstance(batch, Mapping):
        items = {key: function(value) for key, value in batch.items()}
        try:  # keeps subclasses such as Hugging Face's BatchEncoding
            return type(batch)(items)  # pyright: ignore[reportCallIssue]
        except TypeError:  # its constructor takes no mapping
            return items
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(function, batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(map(function, batch))
    return batch


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """Apply a function to every tensor, in the order of `tensors`."""
    if isinstance(batch, Tensor):
        return function(batch)
    return map_items(lambda value: map_tensors(function, value), batch)


def _is_list_of_samples(batch: Any) -> bool:
    """Whether this is a list with one mapping a sample, not collated."""
    return (
        isinstance(batch, list)
        and len(batch) > 0
        and all(isinstance(value, Mapping) for value in batch)
        and _holds_tensor(batch)
    )


def _is_list_of_constants(batch: Any, count: int | None) -> bool:
    """Whether this is a list or tuple with one constant a sample."""
    return (
        isinstance(batch, (tuple, list))
        and not hasattr(batch, "_fields")
        and 0 < len(batch) == count
        and not all(value is None for value in batch)
        and not (isinstance(batch, tuple) and all(isinstance(v, NUMBERS) for v in batch))
        and not _holds_tensor(batch)
    )


def size(batch: Any) -> int | None:
    """Number of samples; None if the batch holds no tensor with a dimension.

    Raises:
        ValueError: tensors and lists of samples differ in their number of samples.
        TypeError: see `tensors`.
    """
    sizes = set(_sizes(batch))
    if len(sizes) > 1:
        raise ValueError(
            f"all tensors of a batch count the samples in dimension 0, received sizes "
            f"{sorted(sizes)} (a list of mappings counts by its length); tensors that do not hold "
            f"samples belong in the closure, not in the batch (for nodes and edges of graphs pass "
            f"torch.arange(B), the index of the samples i, and choose outputs, model(…)[i])"
        )
    return sizes.pop() if sizes else None


def _sizes(batch: Any) -> list[int]:
    if isinstance(batch, Tensor):
        return [batch.shape[0]] if batch.ndim else []
    if _is_list_of_samples(batch):
        return [len(batch)]
    if isinstance(batch, Mapping):
        batch = batch.values()
    elif not isinstance(batch, (tuple, list)):
        tensors(batch)  # raises on anything but a constant
        return []
    return [count for value in batch for count in _sizes(value)]


def signature(batch: Any, *, lengths: bool = True) -> Any:
    """Nesting, shapes, dtypes, devices and constants: what a recording of a step depends on.

    Args:
        batch: the nesting.
        lengths: whether sizes count that are no number of samples.
    """
    if isinstance(batch, Mapping):
        items = tuple((key, signature(v, lengths=lengths)) for key, v in batch.items())
        return type(batch), items
    if isinstance(batch, (tuple, list)):
        return type(batch), tuple(signature(value, lengths=lengths) for value in batch)
    if isinstance(batch, Tensor):
        shape = batch.shape if lengths else (batch.ndim, *batch.shape[:1])
        return shape, batch.dtype, batch.device, batch.requires_grad
    return type(batch), batch


def select(batch: Any, index: Tensor) -> Any:
    """The samples at `index` (1-D, int64, any device), in that order."""

    def rows(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.index_select(0, index.to(value.device))
        return type(value)(value[i] for i in index.tolist())

    return map_samples(rows, batch)


def chunks(batch: Any, samples: int) -> list[Any]:
    """Consecutive parts of at most `samples` samples; their tensors are views."""
    count = size(batch)
    starts = range(0, max(count or 0, 1), samples)
    return [_map(lambda v, i=i: v[i : i + samples], batch, count) for i in starts]


def random_parts(
    count: int, first: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Split range(count) at random into `first` indices and the others.

    Args:
        count: number of samples.
        first: size of the first part.
        generator: source of the permutation; default torch's global one.

    Returns:
        Two int64 tensors, of shape (first,) and (count − first,).
    """
    device = generator.device if generator is not None else "cpu"
    order = torch.randperm(count, generator=generator, device=device)
    return order[:first], order[first:]
