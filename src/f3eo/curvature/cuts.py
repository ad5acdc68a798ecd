"""Values without a gradient that are computed from tensors with one: detach(), no_grad(), item().

A derivative ends there. A second pass at other parameters that measures a derivative takes these
values from the first pass.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from f3eo.decompositions.mode import Call, flat, name_of

DETACHING = {torch.Tensor.detach, torch.detach, torch.Tensor.item, torch.Tensor.__float__}

APPLY = torch.autograd.Function.apply.__func__.__code__  # pyright: ignore


@dataclass
class Cut:
    """A value without a gradient.

    Args:
        func: the function that computed it.
        value: its result, or the new content of its first argument.
        versions: the tensors in it with their versions; empty where `value` is a copy.
        written: whether the function wrote it into its first argument.
    """

    func: Any
    value: Any
    versions: list[tuple[Tensor, int]]
    written: bool = False


class Cuts:
    """The cuts of one forward pass.

    Args:
        moving: tensors that are written into between the passes; values in their memory are copied.
        through: whether graphs continue through custom functions; values computed inside of one
            are then no cuts.
    """

    def __init__(self, moving: Iterable[Tensor] = (), *, through: bool = False) -> None:
        self._through = through
        self._moving = {_memory(t) for t in moving}
        self._by_memory: dict[int, list[Cut]] = {}
        self.kept: dict[int, Cut] = {}
        """Every cut, by the number of its call in the pass."""
        self.transformed = False
        """Whether a cut lies inside of a torch.func transform, where its value cannot be kept."""

    def __bool__(self) -> bool:
        return bool(self.kept)

    def before_write(self, call: Call) -> None:
        """Copy the kept values in the memory that a call is about to write to."""
        if self._by_memory:
            for cut in self._by_memory.pop(_memory(call.args[0]), ()):
                cut.value, cut.versions = _copied(cut.value), []

    def keep(self, number: int, call: Call, result: Any) -> bool:
        """Keep the value of a call if the graph ends there.

        Needs to be called only where `result` is not one tensor with a graph.

        Args:
            number: of the call in the pass.
            call: the call.
            result: its result.

        Returns:
            Whether floating point numbers were kept.
        """
        inputs = call.tensors
        if any(map(_wrapped, inputs)):  # requires_grad says nothing about these
            self.transformed |= not torch.is_grad_enabled() or call.func in DETACHING
            return False
        if not any(t.requires_grad for t in inputs) or _valueless(call.func):
            return False
        value = call.args[0] if call.writes else result
        tensors = flat((value,))
        if not (tensors or isinstance(value, float)) or any(map(_has_graph, tensors)):
            return False
        if not call.writes and any(t is given for t in tensors for given in inputs):
            return False
        if self._through and _in_custom_function():
            return False
        if call.writes or any(_memory(t) in self._moving for t in tensors):
            self.kept[number] = Cut(call.func, _copied(value), [], call.writes)
        else:
            cut = Cut(call.func, value, [(t, t._version) for t in tensors])
            self.kept[number] = cut
            for t in tensors:
                self._by_memory.setdefault(_memory(t), []).append(cut)
        return not tensors or any(t.is_floating_point() for t in tensors)

    def overwritten(self) -> bool:
        """Whether a kept value was overwritten before it was copied."""
        return any(t._version != v for cut in self.kept.values() for t, v in cut.versions)

    def repeat(self, number: int, call: Call) -> Any:
        """Run a call of the second pass, and give the value of the first.

        Args:
            number: of the call in the pass, one of `kept`.
            call: the call of the second pass.

        Raises:
            RuntimeError: the first pass called another function there.
        """
        cut = self.kept[number]
        if call.func != cut.func:
            raise RuntimeError(
                f"the closure ran {name_of(call.func)} where it ran {name_of(cut.func)} before"
            )
        result = call.func(*call.args, **call.kwargs)  # draws the same random numbers
        if cut.written:
            with torch.no_grad():
                call.args[0].copy_(cut.value)
            return result
        return cut.value if cut.versions else _copied(cut.value)


def _wrapped(tensor: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # pyright: ignore


def _has_graph(tensor: Tensor) -> bool:
    """A view of a leaf under no_grad() requires a gradient, and has no graph."""
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
