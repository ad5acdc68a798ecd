"""The estimates of one process turned into those of all processes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from f3eo.fisher.estimand import Gradients
from f3eo.fisher.estimator import Estimator


@dataclass(frozen=True)
class Place:
    """What is reduced, where in the course of a run.

    Args:
        step: its number, from 0.
        parameters: that it trains, P of them.
        flags: for each, whether it takes part in the structure term.
        estimator: which measured.
        part: which measurement of the step it is: 0 is that of the batch, later ones those of
            further batches that `past` asks for.
        factor: on .grad since it was accumulated; 1 is none.
        uniform: whether one factor explains the change.
        observed: whether the norms of all samples are wanted.
    """

    step: int
    parameters: list[Tensor]
    flags: list[bool]
    estimator: Estimator
    part: int
    factor: float
    uniform: bool
    observed: bool

    @cached_property
    def structured(self) -> Sequence[Tensor]:
        """The structured parameters."""
        return [p for p, s in zip(self.parameters, self.flags, strict=True) if s]

    @property
    def device(self) -> torch.device:
        """Of the first parameter."""
        return self.parameters[0].device if self.parameters else torch.device("cpu")


class Reduction(ABC):
    """Joins the `Gradients` that every process measured on its own part of a batch.

    With W_r = Σ w_i over the samples of process r (`Gradients.weight`) and W = Σ_r W_r:

        L = Σ_r (W_r/W) L_r      ∇L = Σ_r (W_r/W) ∇L_r
        h = Σ_r (W_r/W) h_r      Tr F = Σ_r (W_r/W) Tr F_r      error = max_r error_r

    That is `Gradients.merged` over the processes, and the estimate from the whole batch if
    `Estimator.additive`; all processes must then continue with the same numbers. Norms of samples
    (`Gradients.norms`) are gathered from all processes, or None: those of one fit no other number.
    """

    alone: bool = False
    """Whether there is one process, whose estimates are those of all."""

    @abstractmethod
    def reduce(self, gradients: Gradients, place: Place) -> Gradients:
        """The estimates from the batches of all processes.

        Args:
            gradients: the estimates of this process; `Gradients.nothing` if it has no samples.
            place: what they are of.
        """

    def restart(self) -> None:  # noqa: B027  (nothing was checked)
        """A state was loaded: what holds for a whole run is to be checked again."""

    def fail(self, error: Exception, place: Place) -> None:  # noqa: B027  (nobody to tell)
        """Tell the other processes that this one raises an error in place of `reduce`.

        Args:
            error: which it raises after this.
            place: what it would have reduced.
        """

    def largest(self, number: float, place: Place) -> float:
        """The largest number of any process; all call it at the same place.

        Args:
            number: of this process.
            place: where.
        """
        return number

    def agree(self, number: float, place: Place, why: str) -> None:  # noqa: B027  (with nobody)
        """Refuse a number that is another one on another process.

        Args:
            number: of this process.
            place: where.
            why: words of the error: what differs, and the cure.

        Raises:
            RuntimeError: it differs, or another process has failed.
        """


class SingleProcess(Reduction):
    """There is one process, and its estimates are those of all."""

    alone = True

    def reduce(self, gradients: Gradients, place: Place) -> Gradients:
        """See `Reduction.reduce`; returns `gradients`."""
        return gradients
