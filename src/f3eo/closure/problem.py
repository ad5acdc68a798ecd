"""What one step differentiates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.closure import batch as batches
from f3eo.closure.likelihood import Likelihood
from f3eo.closure.weighted import Shares

Closure = Callable[..., Any]


@dataclass(frozen=True)
class Problem:
    """What one step differentiates.

    Args:
        closure: the user's function; called with `batch`.
        batch: its arguments, samples in dimension 0; empty if the closure takes none.
        parameters: every tensor the optimizer trains.
        structured: for each parameter, whether it belongs to the structure term.
        model: the module behind the closure, if known: for buffers, names and refusals.
        generator: source of the random signs, labels and parts; None is torch's global one.
        repeatable: the closure is known to draw nothing and to write into no buffer.
        names: of the parameters, for messages where the model is not known.
        watch: is shown what the closure gave, with its graph.
    """

    closure: Closure
    batch: tuple[Any, ...]
    parameters: list[Tensor]
    structured: list[bool] = field(default_factory=list)
    model: nn.Module | None = None
    generator: torch.Generator | None = None
    repeatable: bool = False
    names: Sequence[str] | None = None
    watch: "Callable[[Output], None] | None" = None

    def part(self, index: Tensor) -> "Problem":
        """The same problem on the samples at `index`."""
        return replace(self, batch=batches.select(self.batch, index))

    def name(self, parameter: Tensor) -> str:
        """The parameter's name in the model, or its place and shape."""
        for name, p in self.model.named_parameters() if self.model is not None else ():
            if p is parameter:
                return name
        place = next((i for i, p in enumerate(self.parameters) if p is parameter), None)
        if self.names is not None and place is not None:
            return self.names[place]
        return f"parameter {place} of shape {tuple(parameter.shape)}"


@dataclass(frozen=True)
class Output:
    """What a closure gave.

    Args:
        losses: ℓ_i, (B,).
        likelihood: that they came from, if so.
        shares: what each of them counts in the mean.
    """

    losses: Tensor
    likelihood: Likelihood | None
    shares: Shares

    def mean(self) -> Tensor:
        """L, a scalar."""
        return self.shares.mean(self.losses)
