"""A torch function mode that runs composite operations as their parts."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch.overrides import TorchFunctionMode

from f3eo.arguments import Call

Operation = Callable[..., Any]
D = TypeVar("D", bound=Operation)

ONCE: dict[Operation, Operation] = {}
"""Replacements in a pass whose gradients are not differentiated."""

DIFFERENTIABLE: dict[Operation, Operation] = {}
"""Replacements in a pass whose gradients are differentiated again."""


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
            return self.run(Call(func, args, kwargs or {}))
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
