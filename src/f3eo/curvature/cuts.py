"""Where a graph ends: detach(), no_grad(), comparisons, item(). No derivative goes on there.

A pass at other weights that is to tell a derivative gives these results back as they were.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from f3eo.arguments import flat, name_of, writes

DETACHING = {torch.Tensor.detach, torch.detach, torch.Tensor.item, torch.Tensor.__float__}

APPLY = torch.autograd.Function.apply.__func__.__code__  # pyright: ignore


@dataclass
class _Kept:
    """A result without a gradient.

    Args:
        func: that gave it.
        value: the result, or what was written.
        versions: of the tensors in it, while they are the pass's own.
        written: whether it was written into the first argument.
    """

    func: Any
    value: Any
    versions: list[tuple[Tensor, int]]
    written: bool = False


class Cuts:
    """Results without a gradient that were made of tensors with one, by the number of their call.

    Args:
        moving: tensors that are written into between the passes: what shares their memory is
            copied.
        through: whether graphs go on through custom functions: what these compute is no end.
    """

    def __init__(self, moving: Iterable[Tensor] = (), *, through: bool = False) -> None:
        self._through = through
        self._kept: dict[int, _Kept] = {}
        self._moving = {_memory(t) for t in moving}
        self._at: dict[int, list[_Kept]] = {}
        self.transformed = False
        """Whether one was met inside of a torch.func transform, where it cannot be kept."""

    def __bool__(self) -> bool:
        return bool(self._kept)

    def __contains__(self, call: int) -> bool:
        return call in self._kept

    def before(self, func: Any, args: tuple[Any, ...]) -> None:
        """Copy what this call would write over.

        Args:
            func, args: that are about to be called.
        """
        if self._at and writes(func, args):
            for kept in self._at.pop(_memory(args[0]), ()):
                kept.value, kept.versions = _copied(kept.value), []

    def see(
        self, call: int, func: Any, args: tuple[Any, ...], inputs: list[Tensor], result: Any
    ) -> bool:
        """Keep a result, if the graph ends there.

        Args:
            call: its number in the pass.
            func, args: what was called.
            inputs: the tensors among all of its arguments.
            result: what it gave.

        Returns:
            whether floating point numbers were kept.
        """
        if any(map(_wrapped, inputs)):  # whether they have a gradient is not said there
            self.transformed |= not torch.is_grad_enabled() or func in DETACHING
            return False
        if not any(t.requires_grad for t in inputs) or _valueless(func):
            return False
        written = writes(func, args)
        value = args[0] if written else result
        tensors = flat((value,))
        if not (tensors or isinstance(value, float)) or any(map(_goes_on, tensors)):
            return False
        if not written and any(t is given for t in tensors for given in inputs):
            return False
        if self._through and _in_custom_function():
            return False
        if written or any(_memory(t) in self._moving for t in tensors):
            self._kept[call] = _Kept(func, _copied(value), [], written)
        else:
            kept = _Kept(func, value, [(t, t._version) for t in tensors])
            self._kept[call] = kept
            for t in tensors:
                self._at.setdefault(_memory(t), []).append(kept)
        return not tensors or any(t.is_floating_point() for t in tensors)

    def overwritten(self) -> bool:
        """Whether one was written over that was not copied."""
        return any(t._version != v for kept in self._kept.values() for t, v in kept.versions)

    def again(self, call: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What this call gave in the first pass.

        Args:
            call: its number.
            func, args, kwargs: what is called now.

        Raises:
            RuntimeError: another function than it was.
        """
        kept = self._kept[call]
        if func != kept.func:
            raise RuntimeError(
                f"the closure ran {name_of(func)} where it ran {name_of(kept.func)} before"
            )
        result = func(*args, **kwargs)  # for the random numbers that it may draw
        if kept.written:
            with torch.no_grad():
                args[0].copy_(kept.value)
            return result
        return kept.value if kept.versions else _copied(kept.value)


def _wrapped(tensor: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # pyright: ignore


def _goes_on(tensor: Tensor) -> bool:
    """A view that no_grad() makes of a leaf says that it requires a gradient, and has no graph."""
    return tensor.requires_grad and tensor.grad_fn is not None


def _in_custom_function() -> bool:
    """Whether the forward of a `torch.autograd.Function` is running."""
    frame = None if torch.is_grad_enabled() else sys._getframe()
    while frame is not None and frame.f_code is not APPLY:
        frame = frame.f_back
    return frame is not None


def _valueless(func: Any) -> bool:
    """Whether a result does not depend on the numbers in the arguments: zeros_like, new_zeros."""
    name = getattr(func, "__name__", "")
    return name.endswith("_like") or (name.startswith("new_") and name != "new_tensor")


def _memory(tensor: Tensor) -> int:
    """The same number for tensors that share memory."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return type(value)([_copied(v) for v in value]) if isinstance(value, (tuple, list)) else value
