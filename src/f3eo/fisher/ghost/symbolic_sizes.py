"""Sizes that are symbols, in a recording for many lengths (`f3eo.fisher.symbols`)."""

from typing import Any

from torch import Tensor


def has_fixed_shape(*tensors: Tensor) -> bool:
    """Whether all sizes are numbers."""
    return all([isinstance(size, int) for t in tensors for size in t.shape])


def typical(size: Any) -> int:
    """A size to choose by what is cheaper: of a symbol its value at the recording.

    To compare the symbol itself would bind the recording to the outcome.
    """
    return size if isinstance(size, int) else size.node.hint
