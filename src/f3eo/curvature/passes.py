"""Two passes of one function: values without a gradient, recorded in the first, held in the second.

A derivative ends at such values (`f3eo.curvature.cuts`), so a difference must not move them.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.eager import inside_checkpoint
from f3eo.curvature.cuts import Cuts
from f3eo.decompositions import Decomposed
from f3eo.decompositions.mode import Call

HOOKS = {Tensor.register_hook}

# Why no second pass is possible.
HOOKED = "a hook on an activation changes gradients"
CUT_IN_CHECKPOINT = "a checkpoint computes values without a gradient again"
TRANSFORMED = "values without a gradient are made inside of a torch.func transform"
OVERWRITTEN = "a value without a gradient is overwritten"


class RecordCuts(Decomposed):
    """Context manager around the first pass: records the values without a gradient.

    Args:
        moving: the parameters that are moved in place between the passes.
        through: see `Cuts`.
    """

    def __init__(self, moving: Iterable[Tensor], *, through: bool = False) -> None:
        super().__init__(differentiable=False)
        self.cuts = Cuts(moving, through=through)
        self.generators: dict[torch.Generator, Tensor] = {}
        """The user's generators that the pass drew from, with their states before it."""
        self._obstacle: str | None = None
        self._calls = 0

    @property
    def obstacle(self) -> str | None:
        """Why no second pass is possible; None if one is."""
        if self.cuts.transformed:
            return TRANSFORMED
        return OVERWRITTEN if self.cuts.overwritten() else self._obstacle

    @property
    def exchangeable(self) -> bool:
        """Whether the second pass may run on another split of the batch: nothing is held in it."""
        return not self.cuts and not self.generators

    def run(self, call: Call) -> Any:
        """See `Decomposed.run`."""
        self._calls += 1
        if (generator := call.kwargs.get("generator")) is not None:
            self.generators.setdefault(generator, generator.get_state())
        if call.writes:
            self.cuts.before_write(call)
        result = call.func(*call.args, **call.kwargs)
        if call.func in HOOKS:
            self._obstacle = HOOKED
        continues = isinstance(result, Tensor) and result.grad_fn is not None
        if not continues and self.cuts.keep(self._calls, call, result) and inside_checkpoint():
            self._obstacle = CUT_IN_CHECKPOINT
        return result


class HoldCuts(Decomposed):
    """Context manager around the second pass: gives the recorded values back.

    Args:
        cuts: of the first pass.
    """

    def __init__(self, cuts: Cuts) -> None:
        super().__init__(differentiable=False)
        self._cuts = cuts
        self._calls = 0

    def run(self, call: Call) -> Any:
        """See `Decomposed.run`."""
        self._calls += 1
        if self._calls in self._cuts.kept:
            return self._cuts.repeat(self._calls, call)
        return call.func(*call.args, **call.kwargs)
