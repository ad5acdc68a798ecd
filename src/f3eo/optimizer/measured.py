"""Gradients of one batch that wait for their step."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from f3eo.closure.snapshot import Snapshot
from f3eo.fisher import Estimator, Gradients
from f3eo.optimizer.parameters import Trained
from f3eo.strength import Observation
from f3eo.tensors import scaled


@dataclass(frozen=True)
class Change:
    """What was done to g between `accumulate` and `step`, as by `clip_grad_norm_`.

    Args:
        factor: f of g_new = f · g_old; the ratio of the norms where there is no common factor.
        uniform: whether one factor explains the change of every tensor.
    """

    factor: float = 1.0
    uniform: bool = True


@dataclass(frozen=True)
class Measured:
    """L, g, h and Tr F of one batch.

    Args:
        gradients: as the estimator measured them, g with the change.
        snapshot: of the state before the closure ran.
        trained: the parameters they belong to.
        change: what was done to g since; not to h.
        own: L of the batch alone, where something has joined the gradients; default theirs.
        held: see `f3eo.optimizer.past.Joined`.
    """

    gradients: Gradients
    snapshot: Snapshot
    trained: Trained
    change: Change = field(default_factory=Change)
    own: Tensor | None = None
    held: tuple[list[Tensor | None], ...] = ()

    @property
    def loss(self) -> Tensor:
        """L of the batch alone."""
        return self.gradients.loss if self.own is None else self.own

    def rescaled(self) -> Gradients:
        """The gradients with the factor of the change on h, too, and without norms before it."""
        structure = self.gradients.structure
        if self.change == Change():
            return self.gradients
        if structure is not None and self.change.factor != 1:
            structure = scaled(structure, self.change.factor)
        return replace(self.gradients, structure=structure, norms=None)

    def observed(
        self, step: int, loss: float, trace: Tensor | None, estimator: Estimator
    ) -> Observation:
        """What a strength learns of this step.

        Args:
            step: its number, from 0.
            loss: L, pointing uphill on what is to become smaller.
            trace: as last measured.
            estimator: which measured it.
        """
        return Observation(
            step=step,
            loss=loss,
            trace=trace,
            power=estimator.power,
            parameters=estimator.size(self.trained.chosen),
            measured=self.gradients.trace is not None,
        )
