"""Runs a composite operation as its parts while a forward pass is recorded."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch.overrides import TorchFunctionMode

Operation = Callable[..., Any]
D = TypeVar("D", bound=Operation)

ONCE: dict[Operation, Operation] = {}
"""In place of an operation whose result is differentiated once."""

TWICE: dict[Operation, Operation] = {}
"""In place of an operation whose result is differentiated twice."""


def decompose(*operations: Operation, once: Operation | None = None) -> Callable[[D], D]:
    """Run the decorated function in place of these torch functions, with the same arguments.

    Args:
        operations: torch functions.
        once: what runs where one derivative is all that is wanted; default the decorated function.
    """

    def decorate(function: D) -> D:
        TWICE.update(dict.fromkeys(operations, function))
        if (single := once or function) not in operations:
            ONCE.update(dict.fromkeys(operations, single))
        return function

    return decorate


class Decomposed(TorchFunctionMode):
    """Context in which operations that have a decomposition run as their parts.

    Args:
        differentiable: whether the result is differentiated twice.
    """

    def __init__(self, *, differentiable: bool) -> None:
        super().__init__()
        self._table = TWICE if differentiable else ONCE

    def run(self, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation that has no parts; here for modes that look at each."""
        return func(*args, **kwargs)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        operation = self._table.get(func)
        if operation is None:
            return self.run(func, args, kwargs or {})
        table, self._table = self._table, {}  # parts have none of their own
        try:
            return self.seen(operation, args, kwargs or {})
        finally:
            self._table = table

    def seen(self, function: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function whose own calls this mode sees, too."""
        # Not `with self`: what a subclass does around the forward pass is done once.
        TorchFunctionMode.__enter__(self)
        try:
            return function(*args, **kwargs)
        finally:
            TorchFunctionMode.__exit__(self, None, None, None)
