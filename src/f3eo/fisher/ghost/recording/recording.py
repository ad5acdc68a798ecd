"""The record of one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from f3eo.closure.evaluate import check_reached, evaluate
from f3eo.closure.graph import coarsest_unit, reached
from f3eo.closure.output import Output
from f3eo.closure.problem import Problem
from f3eo.curvature.cuts import Cuts
from f3eo.curvature.guard import NotRepeatable
from f3eo.curvature.passes import OVERWRITTEN
from f3eo.decompositions.mode import name_of
from f3eo.fisher.ghost.recording.capture import Capture
from f3eo.fisher.ghost.recording.kinks import Kink
from f3eo.fisher.ghost.recording.use import Use


@dataclass
class Recording:
    """One forward pass with the uses of the parameters in it.

    Args:
        output: losses ℓ_i with their graph, and what each counts.
        uses: operations in which parameters meet samples, in order.
        differentiable: whether the gradients of this pass are differentiated again.
        deriving: numbers of the calls that compute a tensor from parameters alone.
        kinks: pieces of piecewise linear operations, by the number of the call.
        cuts: values without a gradient that were computed from tensors with one.
        generators: the user's generators that the pass drew from, and their states before it.
        dtypes: of all results with a gradient, parts without parameters included.
        obstacle: why replaying the calls does not reproduce the pass, or None.
    """

    output: Output
    uses: list[Use]
    differentiable: bool
    deriving: set[int]
    kinks: dict[int, Kink]
    cuts: Cuts
    generators: dict[torch.Generator, Tensor]
    dtypes: set[torch.dtype]
    obstacle: str | None

    @property
    def edges(self) -> list[GradientEdge]:
        """Graph nodes of all outputs of all uses, in order."""
        return [edge for use in self.uses for edge in use.edges]

    def unit(self, gradients: Sequence[Tensor | None] = ()) -> float:
        """The coarsest rounding unit on the way to the losses and to these gradients."""
        dtypes = {self.output.losses.dtype} | self.dtypes
        dtypes |= {g.dtype for g in gradients if g is not None}
        convolves = any(["conv" in name_of(use.call.func) for use in self.uses])
        return coarsest_unit(dtypes, self.output.losses.device.type, convolves=convolves)

    def stands_before(self, outputs: Sequence[GradientEdge]) -> bool:
        """Whether parameters meet samples on the way to these outputs, and not behind them.

        Args:
            outputs: edges of f.
        """
        if not self.deriving:  # parameters themselves stand before all that is computed
            return True
        before = set(reached(edge.node for edge in outputs))
        return all([edge.node in before for use in self.uses for edge in use.edges])

    def refuse_replay(self) -> None:
        """Refuse a pass that its calls alone do not reproduce.

        Raises:
            NotRepeatable: with the reason.
        """
        if self.obstacle is not None:
            raise NotRepeatable(self.obstacle)
        if any([len(use.shapes) > 1 for use in self.uses]):
            raise NotRepeatable("an operation on parameters has several outputs")
        if any([kink.first._version != kink.version for kink in self.kinks.values()]):
            raise NotRepeatable(
                "a piecewise linear operation's argument or result is written to afterwards"
            )
        if self.cuts.kept and self.cuts.overwritten():
            raise NotRepeatable(OVERWRITTEN)


def record(problem: Problem, *, differentiable: bool) -> Recording:
    """Run the forward pass once, and record the uses of the parameters.

    Args:
        problem: closure, batch and parameters.
        differentiable: whether the gradients of this pass are differentiated again; without,
            fused kernels run.

    Raises:
        ValueError: the losses depend on none of the parameters; see also `evaluate`.
    """
    mode = Capture(problem, differentiable=differentiable)
    output = evaluate(problem, per_sample=True, differentiable=differentiable, mode=mode)
    check_reached(mode.uses, problem.parameters)
    return Recording(
        output=output,
        uses=mode.uses,
        differentiable=differentiable,
        deriving=mode.deriving,
        kinks=mode.kinks,
        cuts=mode.cuts,
        generators=mode.generators,
        dtypes=mode.dtypes,
        obstacle=mode.obstacle,
    )
