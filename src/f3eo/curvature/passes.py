"""A pass that is looked at, and the same pass at other weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from f3eo.arguments import Call
from f3eo.closure.as_written import recomputes
from f3eo.curvature.cuts import Cuts
from f3eo.decompositions import Decomposed

HOOKS = {Tensor.register_hook}

HOOKED = "a hook on an activation changes gradients"
CUT_IN_CHECKPOINT = "a checkpoint computes again what has no gradient"
TRANSFORMED = "values without a gradient are made inside of a torch.func transform"
OVERWRITTEN = "a value without a gradient is written over"


class Recorded(Decomposed):
    """Context manager around a forward pass: what a second one at other weights needs of it.

    Args:
        moving: the parameters that will be moved, in place.
        through: see `Cuts`.
    """

    def __init__(self, moving: Iterable[Tensor], *, through: bool = False) -> None:
        super().__init__(differentiable=False)
        self.cuts = Cuts(moving, through=through)
        self.generators: dict[torch.Generator, Tensor] = {}
        """Generators of the user's that were drawn from, and their states before."""
        self._obstacle: str | None = None
        self._calls = 0

    @property
    def obstacle(self) -> str | None:
        """Why there can be no second pass, if so."""
        if self.cuts.transformed:
            return TRANSFORMED
        return OVERWRITTEN if self.cuts.overwritten() else self._obstacle

    @property
    def parts_alike(self) -> bool:
        """Whether other parts of the batch may stand in for this one."""
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
        if not continues and self.cuts.keep(self._calls, call, result) and recomputes():
            self._obstacle = CUT_IN_CHECKPOINT
        return result


class Held(Decomposed):
    """Context manager around the pass at other weights.

    Args:
        cuts: of the first, given back as they were.
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
