"""The problem of one step: a closure, its batch and the parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Generator, Tensor, nn

from f3eo.closure import batch as batches
from f3eo.closure.draws import Draws
from f3eo.closure.loss_scale import LossScale
from f3eo.closure.output import Output

Closure = Callable[..., Any]


@dataclass(frozen=True)
class Problem:
    """What one step differentiates.

    Args:
        closure: the user's function; it is called with `batch`.
        batch: its arguments, see `f3eo.closure.batch`; empty if it takes none.
        parameters: all tensors that the optimizer trains.
        structured: for each parameter, whether the structure term depends on it.
        model: the module that the closure runs, if known; it gives buffers, names and modes.
        generator: source of random signs, labels and parts; None is torch's global one.
        repeatable: the closure writes into no buffer, and draws no random numbers but in `draws`;
            so it is in a recording, where values are unknown.
        names: names of the parameters for messages, used where the model is not known.
        squares: whether an estimator that can measures `Gradients.squares`, too.
        scale: of the losses in backward passes through float16; None is 1.
        on_output: called with the output of the closure while it has a graph.
        draws: gives a repeatable closure the same random numbers again; None where there are none.
    """

    closure: Closure
    batch: tuple[Any, ...]
    parameters: list[Tensor]
    structured: list[bool] = field(default_factory=list)
    model: nn.Module | None = None
    generator: Generator | None = None
    repeatable: bool = False
    names: Sequence[str] | None = None
    squares: bool = False
    scale: LossScale | None = None
    on_output: Callable[[Output], None] | None = None
    draws: Draws | None = None

    @property
    def factor(self) -> float:
        """S, the factor on the losses that the closure returned last; 1 without float16."""
        return 1.0 if self.scale is None else self.scale.factor

    @cached_property
    def structured_parameters(self) -> list[Tensor]:
        """The parameters that the structure term depends on."""
        return [p for p, s in zip(self.parameters, self.structured, strict=True) if s]

    @cached_property
    def tensors(self) -> list[Tensor]:
        """Every tensor in the batch."""
        return batches.tensors(self.batch)

    @cached_property
    def size(self) -> int | None:
        """Number of samples in the batch; None if it holds no tensor with a dimension.

        Raises:
            ValueError, TypeError: see `f3eo.closure.batch.size`.
        """
        return batches.size(self.batch)

    def part(self, index: Tensor) -> "Problem":
        """The same problem on the samples at `index`, shape (n,), int64."""
        part = replace(self, batch=batches.select(self.batch, index))
        if self.size is not None:
            part.__dict__["size"] = len(index)  # fills the cache: not counted again
        return part

    def name(self, parameter: Tensor) -> str:
        """Name of the parameter in the model or in `names`; else its position and shape."""
        for name, p in self.model.named_parameters() if self.model is not None else ():
            if p is parameter:
                return name
        position = next((i for i, p in enumerate(self.parameters) if p is parameter), None)
        if self.names is not None and position is not None:
            return self.names[position]
        return f"parameter {position} of shape {tuple(parameter.shape)}"
