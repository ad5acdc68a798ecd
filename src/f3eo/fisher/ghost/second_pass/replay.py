"""The forward pass again, every sample at weights of its own, W + ε G_i.

Its calls of torch functions are those of the recorded pass, one by one; where parameters meet
samples the operation runs on each sample's own weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.func import vmap
from torch.overrides import resolve_name

from f3eo.arguments import Arguments, Slot, flat, mapped_arguments
from f3eo.curvature.cuts import Cuts
from f3eo.decompositions import Decomposed
from f3eo.fisher.ghost.gradients.fallback import Sample, without_loop_warnings
from f3eo.fisher.ghost.recording.capture import EXPANSIONS
from f3eo.fisher.ghost.recording.kinks import KINKED, on_piece
from f3eo.fisher.ghost.recording.layout import Layout
from f3eo.fisher.ghost.recording.use import Use
from f3eo.fisher.ghost.registry import PERTURBED
from f3eo.fisher.ghost.second_pass.shifted import Derived, Weights


@dataclass(frozen=True)
class Place:
    """A use as far as a second pass needs it.

    Args:
        operation: the function.
        shape, stride: of its output.
        layout: where the output keeps the samples.
        sampled: for each tensor among the arguments in order, whether it carries samples.
    """

    operation: Callable[..., Any]
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    layout: Layout
    sampled: tuple[bool, ...]


def place(use: Use, layouts: list[Layout]) -> Place:
    """The place of a recorded use."""
    tensors = flat((*use.args, *use.kwargs.values()))
    sampled = tuple(id(t) in use.sampled for t in tensors)
    return Place(use.operation, tuple(use.shapes[0]), use.strides[0], layouts[0], sampled)


@dataclass(frozen=True)
class SecondPass:
    """What is kept of a recorded pass for one like it.

    Args:
        places: the uses by the number of their call.
        derived: numbers of the calls that make one parameter of others.
        kinks: what keeps piecewise linear operations on their piece, by the number of their call.
        cuts: results without a gradient, which are what they were.
        once: ids of the leaves that a single use takes, as they are.
        samples: B.
    """

    places: Mapping[int, Place]
    derived: set[int]
    kinks: Mapping[int, Tensor]
    cuts: Cuts
    once: set[int]
    samples: int


class Perturbed(Decomposed):
    """Context manager around a repeated forward pass.

    Args:
        recorded: what was kept of the first.
        weights: W_i of the leaves, by id.
    """

    def __init__(self, recorded: SecondPass, weights: Mapping[int, Weights]) -> None:
        super().__init__(differentiable=False)
        self._places = recorded.places
        self._deriving = recorded.derived
        self._kinks = recorded.kinks
        self._cuts = recorded.cuts
        self._samples = recorded.samples
        self._weights = dict(weights)
        self._calls = 0

    def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Decomposed.run`."""
        self._calls += 1
        if self._calls in self._deriving:
            return self._derive(func, args, kwargs)
        if (first := self._kinks.get(self._calls)) is not None and func in KINKED:
            return on_piece(func, first, args, kwargs)
        if self._calls in self._cuts:
            return self._cuts.again(self._calls, func, args, kwargs)
        use = self._places.get(self._calls)
        if use is None or not self._moves(args, kwargs):
            return func(*args, **kwargs)
        if use.operation is not func:
            raise RuntimeError(
                f"the closure ran {resolve_name(func)} where it ran {resolve_name(use.operation)} "
                f"before: finite differences need a closure that does the same twice; use "
                f"PerSample(DoubleBackward())"
            )
        return self._use(use, args, kwargs)

    def _derive(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if self._moves(args, kwargs):
            values = over_samples(func, mapped_arguments(self._own, (args, kwargs)))
            for shared, own in zip(flat((result,)), flat((values,)), strict=True):
                self._weights[id(shared)] = Derived(shared, own)
        return result

    def _use(self, use: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        flags = iter(use.sampled)

        def visited(tensor: Tensor) -> Any:
            if next(flags):
                return Sample(
                    use.layout.split_argument(tensor, use.shape, self._samples, use.operation)
                )
            return self._own(tensor)

        arguments = mapped_arguments(visited, (args, kwargs))
        if use.operation in EXPANSIONS:
            return _laid_out(use.layout.join(self._repeated(use, arguments[0][0])), use.stride)
        result = None
        if (function := PERTURBED.get(use.operation)) is not None:
            args, kwargs = mapped_arguments(lambda v: v.tensor, arguments, Sample)
            result = function(*args, **kwargs)
        if result is None:
            result = over_samples(use.operation, arguments)
        return _laid_out(use.layout.join(result), use.stride)

    def _repeated(self, use: Place, weights: Weights) -> Tensor:
        """A parameter repeated for every sample: each sample's own, once."""
        own = weights.tensor()
        alone = use.layout.sizes(use.shape, self._samples)
        own = own.view(len(own), *(1,) * (len(alone) + 1 - own.ndim), *own.shape[1:])
        return own.repeat(1, *(a // o for a, o in zip(alone, own.shape[1:], strict=True)))

    def _moves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return any(id(t) in self._weights for t in flat((*args, *kwargs.values())))

    def _own(self, tensor: Tensor) -> Any:
        return self._weights.get(id(tensor), tensor)


def _laid_out(tensor: Tensor, stride: tuple[int, ...]) -> Tensor:
    """In memory as in the first pass: dropout draws its mask in the order of memory."""
    sizes = zip(tensor.shape, tensor.stride(), stride, strict=True)
    if all(size == 1 or own == first for size, own, first in sizes):
        return tensor
    return tensor.new_empty_strided(tensor.shape, stride).copy_(tensor)


def over_samples(function: Callable[..., Any], arguments: Arguments) -> Any:
    """A function on every sample alone, by `torch.func.vmap`.

    Args:
        function: of a batch of one.
        arguments: args and kwargs, with `Sample` and `Weights` in place of what differs.
    """
    members: list[Tensor] = []

    def slot(value: Any) -> Slot:
        members.append(value.tensor if isinstance(value, Sample) else value.tensor())
        return Slot(len(members) - 1)

    slots = mapped_arguments(slot, arguments, (Sample, Weights))

    def single(own: list[Tensor]) -> Any:
        args, kwargs = mapped_arguments(lambda v: own[v.k], slots, Slot)
        return function(*args, **kwargs)

    with without_loop_warnings():
        return vmap(single)(members)
