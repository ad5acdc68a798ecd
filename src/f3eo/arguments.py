"""Arguments of torch functions: the tensors among them, and whether they are written to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import resolve_name

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""args and kwargs."""

Kind = type | tuple[type, ...]


@dataclass(frozen=True)
class Slot:
    """Place of the k-th of some values in an operation's arguments."""

    k: int


def name_of(operation: Any) -> str:
    """An operation's name, for messages."""
    return resolve_name(operation) or getattr(operation, "__name__", repr(operation))


def flat(values: Iterable[Any]) -> list[Tensor]:
    """Every tensor among values and the tuples and lists in them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += flat(value)
    return found


def writes(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a function writes into its first argument."""
    return in_place(func) and bool(args) and isinstance(args[0], Tensor)


@lru_cache(maxsize=4096)
def in_place(func: Any) -> bool:
    """Whether a function is of the kind that writes: add_, mul_, item assignment."""
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or func is torch.Tensor.__setitem__


def out_of_place(func: Any, args: tuple[Any, ...]) -> Any:
    """The function behind add_, mul_, … that returns a new tensor, or None."""
    return getattr(torch.Tensor, func.__name__[:-1], None) if writes(func, args) else None


def mapped_arguments(
    function: Callable[[Any], Any], arguments: Arguments, kind: Kind = Tensor
) -> Arguments:
    """The same args and kwargs with `function` applied to every member of type `kind`."""
    args, kwargs = arguments
    return (
        tuple(_visited(function, kind, v) for v in args),
        {k: _visited(function, kind, v) for k, v in kwargs.items()},
    )


def _visited(function: Callable[[Any], Any], kind: Kind, value: Any) -> Any:
    # No closure that calls itself: it would be a cycle that holds the step's tensors.
    if isinstance(value, kind):
        return function(value)
    if type(value) in (tuple, list):
        return type(value)(_visited(function, kind, v) for v in value)
    return value
