"""Runs a composite operation as its parts while a forward pass is recorded."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch.overrides import TorchFunctionMode

Operation = Callable[..., Any]
D = TypeVar("D", bound=Operation)

DECOMPOSITIONS: dict[Operation, Operation] = {}


def decompose(*operations: Operation) -> Callable[[D], D]:
    """Run the decorated function in place of these torch functions, with the same arguments."""

    def decorate(function: D) -> D:
        DECOMPOSITIONS.update(dict.fromkeys(operations, function))
        return function

    return decorate


class Decomposed(TorchFunctionMode):
    """Context in which operations that have a decomposition run as their parts."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        operation: Operation = DECOMPOSITIONS.get(func) or func
        return operation(*args, **(kwargs or {}))
