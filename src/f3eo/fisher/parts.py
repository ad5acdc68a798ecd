"""How a batch is measured: whole, in chunks, or with the structure term on a random part of it."""

import logging
from dataclasses import dataclass, field, replace
from functools import reduce

import torch
from torch import nn

from f3eo.closure import batch as batches
from f3eo.closure.coupling import CURES, Coupling
from f3eo.closure.mixing import mixing_modules
from f3eo.closure.problem import Problem
from f3eo.fisher import Estimator, Gradients

logger = logging.getLogger("f3eo")

USUAL_FRACTION = 0.25
"""Part of a batch on which h is measured where nothing else is said."""


@dataclass(frozen=True)
class Measurement:
    """∇L and, where it is asked for, h of one batch.

    Args:
        estimator: measures both.
        fraction: part of the batch, drawn at random, on which h is measured; None is a quarter, or
            the whole batch where it cannot be split.
        chunk: largest number of samples that go through the model at once; None is no bound.
        coupling: remembers which closures have been found to couple the samples of a batch.
    """

    estimator: Estimator
    fraction: float | None
    chunk: int | None
    coupling: Coupling = field(default_factory=Coupling)

    def gradient_equivalents(self, every: int) -> float:
        """Cost of one step in plain gradients, counted in forward passes (3 a gradient).

        Args:
            every: steps from one measurement of h to the next.
        """
        usual = USUAL_FRACTION if self.estimator.additive else 1.0
        fraction = usual if self.fraction is None else self.fraction
        fresh = fraction * self.estimator.forwards + (1 - fraction) * 3
        return (fresh + 3 * (every - 1)) / every / 3

    def __call__(self, problem: Problem, *, structure: bool) -> Gradients:
        """Measure a batch.

        Args:
            problem: closure, batch and parameters.
            structure: whether h is wanted.

        Raises:
            ValueError: an empty batch, or parts of a batch that cannot be had.
        """
        count = problem.size
        if count == 0:
            raise ValueError(
                "the batch holds no samples: its mean loss is not defined; leave it out"
            )
        if self.chunk is None or (count is not None and count <= self.chunk):
            return self._chunk(problem, count, structure)
        if count is None:
            raise ValueError(f"chunk={self.chunk} needs the batch: use step(closure, *batch)")
        what = f"chunk={self.chunk}"
        self.refuse_parts(what, problem.model)
        # No more samples than may go through the model at once, but the two that can differ.
        first = batches.chunks(problem.batch, max(2, self.chunk))[0]
        self.refuse_coupled(what, replace(problem, batch=first))
        # One after the other: at most two chunks' gradients are there at a time.
        measured = (
            self._chunk(replace(problem, batch=part), batches.size(part), structure)
            for part in batches.chunks(problem.batch, self.chunk)
        )
        return reduce(Gradients.merged, measured)

    def _chunk(self, problem: Problem, count: int | None, structure: bool) -> Gradients:
        if not structure:
            return self.estimator.loss_gradient(problem)
        fraction = self.fraction
        if fraction is None:
            splits = (
                count is not None and self.estimator.additive and not mixing_modules(problem.model)
            )
            fraction = USUAL_FRACTION if splits else 1.0
        if fraction == 1:
            return self.estimator.gradients(problem)
        what = f"fraction={fraction}"
        if count is None:
            raise ValueError(f"{what} needs the batch: use step(closure, *batch)")
        self.refuse_parts(what, problem.model)
        first = max(1, round(fraction * count))
        if self.fraction is not None:
            self.refuse_coupled(what, problem, first)
        elif (difference := self._difference(problem, first)) is not None:
            self.coupling.log_once(
                f"the closure couples its samples, so the structure term is measured on the whole "
                f"batch, as with fraction=1: {difference}"
            )
            return self.estimator.gradients(problem)
        inside, outside = batches.random_parts(count, first, problem.generator)
        return self.estimator.gradients_on_part(problem, inside, outside)

    def _difference(self, problem: Problem, first: int | None = None) -> str | None:
        """The first sample whose loss in a part of `first` samples, default half, is another."""
        count = problem.size or 0
        first = count // 2 if first is None else first
        if not 0 < first < count:
            return None
        return self.coupling.check(problem, torch.arange(first)).difference

    def refuse_coupled(self, what: str, problem: Problem, first: int | None = None) -> None:
        """Raise if the losses of a part are not those of the whole.

        Args:
            what: asks for parts.
            problem: closure and batch.
            first: number of samples of the part that is tried; default half of them.

        Raises:
            ValueError: names the first sample whose loss is another, both losses and the cures.
        """
        if (difference := self._difference(problem, first)) is not None:
            raise ValueError(
                f"{what} splits the batch, but the closure couples its samples: {difference}; "
                f"{CURES}"
            )

    def refuse_parts(self, what: str, model: nn.Module | None) -> None:
        """Raise if a batch must not be split, or joined from micro-batches.

        Raises:
            ValueError: the estimator is no mean over samples, or the model mixes them.
        """
        if not self.estimator.additive:
            raise ValueError(
                f"{what} needs an estimator that is a mean over samples: the product H·g of a "
                f"batch is not the sum over its parts; use PerSample(), Sign() or ModelSampled(), "
                f"received {type(self.estimator).__name__}"
            )
        if names := mixing_modules(model):
            raise ValueError(
                f"{what} splits the batch, but {', '.join(names[:3])} use(s) the statistics of all "
                f"of it: freeze them with .eval(), or replace them by GroupNorm"
            )
