"""Batches: any nesting of tensors whose dimension 0 counts the samples.

The nesting is made of mappings, tuples and lists. In it

- a tensor with a dimension holds one sample a row; a tensor without one is a constant;
- a list of mappings, tensors among their values, holds one sample a mapping (samples as a data set
  gives them, not collated), whatever shapes are in them; collated parts stand in a tuple;
- a list or tuple without tensors, as long as the batch, holds one constant a sample: strings, ids,
  lists of words. But a tuple of numbers is a constant, since sizes and ranges are such tuples; a
  list of numbers as long as the batch is not. Where lists are nested, the outermost counts;
- everything else is a constant, handed on as it is.

Parts of a batch are cut out of all that holds samples.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

NUMBERS = (type(None), bool, int, float, complex)
CONSTANTS = (*NUMBERS, str, bytes)


def tensors(batch: Any) -> Iterator[Tensor]:
    """Every tensor of a nested batch, depth first."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from tensors(value)
    elif not isinstance(batch, CONSTANTS):
        raise TypeError(
            f"a batch holds tensors in tuples, lists and mappings (numbers, strings and None pass "
            f"through as constants), received a {type(batch).__name__}; hand its tensors over (of "
            f"an array torch.as_tensor(array), of a dataclass vars(batch))"
        )


def mapped(function: Callable[[Any], Any], batch: Any) -> Any:
    """The same nesting with `function` applied to all that holds samples.

    Args:
        function: takes a tensor with the samples in dimension 0, or a list or tuple with one entry
            a sample.
        batch: the nesting.
    """
    return _mapped(function, batch, size(batch))


def _mapped(function: Callable[[Any], Any], batch: Any, count: int | None) -> Any:
    if isinstance(batch, Tensor):
        return function(batch) if batch.ndim else batch
    if _are_samples(batch) or _are_constants(batch, count):
        return function(batch)
    if isinstance(batch, Mapping):
        # Mapping subclasses (Hugging Face's BatchEncoding) are handed on as plain dicts only
        # where their own constructor does not take one.
        items = {key: _mapped(function, value, count) for key, value in batch.items()}
        try:
            return type(batch)(items)  # pyright: ignore[reportCallIssue]
        except TypeError:
            return items
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_mapped(function, value, count) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_mapped(function, value, count) for value in batch)
    return batch


def _are_samples(batch: Any) -> bool:
    """Whether this is a list of samples that have not been collated."""
    return (
        isinstance(batch, list)
        and len(batch) > 0
        and all(isinstance(value, Mapping) for value in batch)
        and any(True for _ in tensors(batch))
    )


def _are_constants(batch: Any, count: int | None) -> bool:
    """Whether this holds one constant a sample."""
    return (
        isinstance(batch, (tuple, list))
        and not hasattr(batch, "_fields")
        and 0 < len(batch) == count
        and not all(value is None for value in batch)
        and not (isinstance(batch, tuple) and all(isinstance(v, NUMBERS) for v in batch))
        and not any(True for _ in tensors(batch))
    )


def size(batch: Any) -> int | None:
    """Number of samples, or None where the batch holds no tensor with a dimension.

    Raises:
        ValueError: tensors and lists of samples disagree.
    """
    sizes = set(_sizes(batch))
    if len(sizes) > 1:
        raise ValueError(
            f"all tensors of a batch count the samples in dimension 0, received sizes "
            f"{sorted(sizes)} (a list of mappings counts by its length); tensors that are no "
            f"samples belong into the closure, not the batch"
        )
    return sizes.pop() if sizes else None


def _sizes(batch: Any) -> Iterator[int]:
    if isinstance(batch, Tensor):
        if batch.ndim:
            yield batch.shape[0]
    elif _are_samples(batch):
        yield len(batch)
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _sizes(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from _sizes(value)
    else:
        yield from (0 for _ in tensors(batch))  # refuses what is no nesting


def kind(batch: Any) -> Any:
    """What batches have in common that one recording fits: nesting, shapes, types, constants."""
    if isinstance(batch, Mapping):
        return type(batch), tuple((key, kind(value)) for key, value in batch.items())
    if isinstance(batch, (tuple, list)):
        return type(batch), tuple(kind(value) for value in batch)
    if isinstance(batch, Tensor):
        return batch.shape, batch.dtype, batch.device, batch.requires_grad
    return type(batch), batch


def selected(batch: Any, index: Tensor) -> Any:
    """The samples at `index` (1-D, int64, any device), in that order."""

    def taken(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.index_select(0, index.to(value.device))
        return type(value)(value[i] for i in index.tolist())

    return mapped(taken, batch)


def chunks(batch: Any, samples: int) -> list[Any]:
    """Consecutive parts of at most `samples` samples; views, nothing is copied."""
    count = size(batch)
    parts = range(0, max(count or 0, 1), samples)
    return [_mapped(lambda v, i=i: v[i : i + samples], batch, count) for i in parts]


def random_parts(
    count: int, first: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Two disjoint random index sets that cover range(count), the first with `first` members."""
    device = generator.device if generator is not None else "cpu"
    order = torch.randperm(count, generator=generator, device=device)
    return order[:first], order[first:]
