"""A call of a torch function: its arguments and the tensors among them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import resolve_name

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""args and kwargs."""


@dataclass(eq=False)
class Call:
    """One call of a function.

    Args:
        func: the function.
        args, kwargs: its arguments.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @cached_property
    def tensors(self) -> list[Tensor]:
        """Every tensor among the arguments, also in tuples and lists."""
        return flat((*self.args, *self.kwargs.values())) if self.kwargs else flat(self.args)

    @cached_property
    def writes(self) -> bool:
        """Whether the function writes into its first argument."""
        return in_place(self.func) and bool(self.args) and isinstance(self.args[0], Tensor)

    @property
    def out_of_place(self) -> Callable[..., Any] | None:
        """The function behind add_, mul_, … that returns a new tensor; None for any other."""
        return getattr(torch.Tensor, self.func.__name__[:-1], None) if self.writes else None

    def substituted(self, values: Sequence[Any]) -> Arguments:
        """The arguments with other values in place of `tensors`.

        Args:
            values: one for each of `tensors`, in their order.
        """
        following = iter(values)
        args = tuple([_substituted(v, following) for v in self.args])
        return args, {k: _substituted(v, following) for k, v in self.kwargs.items()}


def _substituted(value: Any, following: Iterator[Any]) -> Any:
    if isinstance(value, Tensor):
        return next(following)
    if type(value) in (tuple, list):
        return type(value)([_substituted(v, following) for v in value])
    if isinstance(value, (tuple, list)):  # torch.Size, named tuples: kept as they are
        for _ in flat(value):
            next(following)
    return value


def flat(values: Iterable[Any]) -> list[Tensor]:
    """Every tensor among values, also in tuples and lists."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += flat(value)
    return found


def name_of(operation: Any) -> str:
    """An operation's name, for messages."""
    return resolve_name(operation) or getattr(operation, "__name__", repr(operation))


@lru_cache(maxsize=4096)
def in_place(func: Any) -> bool:
    """Whether a function writes into its first argument: add_, mul_, item assignment."""
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or func is torch.Tensor.__setitem__
