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
        ONCE.update(dict.fromkeys(operations, once or function))
        return function

    return decorate


class Decomposed(TorchFunctionMode):
    """Context in which operations that have a decomposition run as their parts.

    Args:
        twice: whether the result is differentiated twice.
    """

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        self._table = TWICE if twice else ONCE

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        operation: Operation = self._table.get(func) or func
        return operation(*args, **(kwargs or {}))
