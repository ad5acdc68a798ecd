"""Rehearsal: every step descends loss and trace of a few samples of earlier tasks, too."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from torch import Tensor, nn

from f3eo.closure.batch import size
from f3eo.closure.problem import Closure
from f3eo.continual.memory import Memory
from f3eo.fisher import Gradients
from f3eo.optimizer.checks import in_range
from f3eo.optimizer.past import Data, Joined, Past, Present
from f3eo.tensors import plus


class Rehearsal(Past):
    """Adds a batch m from a memory: L + a L_m, g + a g_m, h + b h_m, a = `loss`, b = `structure`.

    The batch m is measured as the other one is, with the closure, estimator, `fraction` and `every`
    of the optimizer, but by itself: a BatchNorm takes its statistics, and writes them into its
    buffers, too. The trace is a mean over samples, so h + b h_m descends the trace of both. Where
    it is decoupled, the structure direction is d = h + b h_m less its part in the plane of ∇L and
    ∇L_m, so that ⟨∇L, d⟩ = ⟨∇L_m, d⟩ = 0 in the metric of the base, whatever the rule: to first
    order d changes the loss of neither.

    Each of several processes keeps samples of its own batches, and m is what all draw together:
    `samples` of each.

    After the step the memory takes in the new batch. A step that is skipped leaves it out, and one
    is skipped, too, if the loss or a gradient of m is not finite. `F3EO.trace` and what a strength
    observes stay those of the new batch.

    Args:
        memory: `Reservoir(size)`, `Ring(per_task)`, `Balanced(size, key)`, or another `Memory`.
        samples: of m; default 10.
        loss: a; default 1. At 0 the loss is that of the present task alone, and a step that
            measures no h takes no batch from the memory.
        structure: b; default 1. At 0 the trace is that of the present batch alone, and m costs one
            plain gradient.
        decouple: whether d leaves both losses alone; otherwise the rule projects it off the joined
            gradient alone. Default True.

    Raises:
        TypeError, ValueError: arguments that do not fit; the message names the cure.

    Source: Chaudhry et al. 2019 (1902.10486) for the loss; Lopez-Paz & Ranzato 2017 (1706.08840)
        for gradients that leave the loss of a memory alone.
    """

    keeps_samples = True

    def __init__(
        self,
        memory: Memory,
        samples: int = 10,
        *,
        loss: float = 1.0,
        structure: float = 1.0,
        decouple: bool = True,
    ) -> None:
        if not isinstance(memory, Memory):
            raise TypeError(
                f"Rehearsal needs a memory, such as Reservoir(500), received {memory!r}"
            )
        for name, value in (("loss", loss), ("structure", structure)):
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"Rehearsal needs a finite {name} >= 0, received {value!r}")
        self.memory = memory
        self.samples = in_range("samples", samples, 0, None, integer=True)
        self.loss, self.structure, self.decouple = loss, structure, decouple
        self.last_loss: Tensor | None = None
        """L_m as last measured, a scalar; None before."""
        self.last_trace: Tensor | None = None
        """Tr(D F D) of m as last measured, a scalar; None before."""

    def join(self, present: Present, joined: Joined) -> Joined:
        """See `Past.join`.

        Raises:
            ValueError: the closure is given no samples that a memory could keep.
        """
        if any(size(batch) is None for batch in present.batches):
            raise ValueError(
                "Rehearsal keeps samples of earlier batches, and the closure is given none: pass "
                "the batch, step(closure, *batch), with the samples in dimension 0"
            )
        measures = joined.gradients.structure is not None and self.structure > 0
        if not self.loss and not measures:
            return joined
        found = present.measure(self.memory.draw(self.samples), measures)
        if found is None:
            return joined
        self.last_loss = found.loss
        self.last_trace = found.trace if found.trace is not None else self.last_trace
        held = (found.gradient,) if self.decouple else ()
        return Joined(self._together(joined.gradients, found), (*joined.held, *held))

    def _together(self, own: Gradients, found: Gradients) -> Gradients:
        """L + a L_m, g + a g_m and h + b h_m; a loss that is not finite stays so where a is 0."""
        structure = own.structure
        if structure is not None and found.structure is not None:
            structure = plus(structure, found.structure, self.structure)
        gradient = own.gradient
        if self.loss:
            pairs = zip(gradient, found.gradient, strict=True)
            gradient = [_sum(g, other, self.loss) for g, other in pairs]
        loss = own.loss + self.loss * found.loss.to(own.loss)
        return replace(own, loss=loss, gradient=gradient, structure=structure)

    def after(self, present: Present) -> None:
        """See `Past.after`: the memory takes in the batch."""
        for batch in present.batches:
            self.memory.add(*batch)

    def consolidate(
        self,
        model: nn.Module | Iterable[Tensor],
        closure: Closure | None = None,
        data: Data | None = None,
    ) -> None:
        """See `Past.consolidate`: tells the memory that a task ends; nothing is measured."""
        self.memory.end_task()

    def state_dict(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """See `Past.state_dict`."""
        last = {"last_loss": self.last_loss, "last_trace": self.last_trace}
        return {"memory": self.memory.state_dict(), **last}

    def load_state_dict(self, state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        """See `Past.load_state_dict`."""
        self.memory.load_state_dict(state["memory"])
        self.last_loss, self.last_trace = state["last_loss"], state["last_trace"]


def _sum(a: Tensor | None, b: Tensor | None, factor: float) -> Tensor | None:
    """a + factor · b, where None is 0, and stays None where both are."""
    if b is None:
        return a
    return factor * b if a is None else a.add(b, alpha=factor)
