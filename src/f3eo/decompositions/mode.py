"""Calls of torch functions: as records, and composite operations as calls of their parts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""args and kwargs."""

Operation = Callable[..., Any]
D = TypeVar("D", bound=Operation)

ONCE: dict[Operation, Operation] = {}
"""Replacements in a pass whose gradients are not differentiated."""

DIFFERENTIABLE: dict[Operation, Operation] = {}
"""Replacements in a pass whose gradients are differentiated again."""


@dataclass(eq=False)
class Call:
    """One call of a function.

    Args:
        func: the function.
        args, kwargs: its arguments.
        tensors: every tensor among them, also in tuples and lists.
        writes: whether the function writes into its first argument.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: list[Tensor]
    writes: bool

    @staticmethod
    def of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Call":
        """The record of a call."""
        tensors = flat((*args, *kwargs.values())) if kwargs else flat(args)
        writes = in_place(func) and bool(args) and isinstance(args[0], Tensor)
        return Call(func, args, kwargs, tensors, writes)

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


def decompose(*operations: Operation, once: Operation | None = None) -> Callable[[D], D]:
    """Run the decorated function in place of these torch functions, with the same arguments.

    Args:
        operations: torch functions.
        once: the replacement where gradients are not differentiated again; default the decorated
            function. An operation itself means that it stays whole there.
    """

    def decorate(function: D) -> D:
        DIFFERENTIABLE.update(dict.fromkeys(operations, function))
        if (single := once or function) not in operations:
            ONCE.update(dict.fromkeys(operations, single))
        return function

    return decorate


class Decomposed(TorchFunctionMode):
    """Context in which operations that have a decomposition run as their parts.

    Args:
        differentiable: whether the gradients of this pass are differentiated again.
    """

    def __init__(self, *, differentiable: bool) -> None:
        super().__init__()
        self._replacements = DIFFERENTIABLE if differentiable else ONCE

    def run(self, call: Call) -> Any:
        """Run an operation that has no decomposition; subclasses observe or replace it here."""
        return call.func(*call.args, **call.kwargs)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        replacement = self._replacements.get(func)
        if replacement is None:
            return self.run(Call.of(func, args, kwargs or {}))
        replacements, self._replacements = self._replacements, {}  # parts are not decomposed
        try:
            return self.observe(replacement, args, kwargs or {})
        finally:
            self._replacements = replacements

    def observe(self, function: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function with this mode active, so that `run` receives its operations."""
        # Not `with self`: a subclass's own __enter__ and __exit__ belong to the forward pass.
        TorchFunctionMode.__enter__(self)
        try:
            return function(*args, **kwargs)
        finally:
            TorchFunctionMode.__exit__(self, None, None, None)
