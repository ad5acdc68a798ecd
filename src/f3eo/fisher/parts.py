"""Measure a batch whole, in chunks, or with the structure term on a random part of it."""

import logging
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import torch
from torch import nn

from f3eo.closure.batch import chunks, random_parts
from f3eo.closure.coupling import CURES, Coupling
from f3eo.closure.mixing import mixing_modules
from f3eo.closure.problem import Problem
from f3eo.fisher import Estimator, Gradients

logger = logging.getLogger("f3eo")

USUAL_FRACTION = 0.25
"""The default part of a batch on which h is measured."""


class NoSamples(ValueError):
    """A batch of none, which one of several processes may have."""


@dataclass(frozen=True)
class Measurement:
    """Measures ∇L of a batch, and h on request.

    Args:
        estimator: estimates ∇L, h and Tr F.
        fraction: part of the batch, drawn at random, on which h is measured; None is a quarter, or
            the whole batch if it cannot be split.
        chunk: largest number of samples in one forward pass; None is no bound.
        coupling: remembers which closures couple the samples of a batch.
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
            structure: whether h is measured beside ∇L.

        Raises:
            ValueError: the batch is empty, or must be split and cannot be.
        """
        count = problem.size
        if count == 0:
            raise NoSamples(
                "the batch holds no samples: its mean loss is not defined; leave it out"
            )
        if self.chunk is None or (count is not None and count <= self.chunk):
            return self._chunk(problem, structure)
        if count is None:
            raise ValueError(f"chunk={self.chunk} needs the batch: use step(closure, *batch)")
        what = f"chunk={self.chunk}"
        self.refuse_parts(what, problem.model)
        # One chunk is tried, of two samples at least: one sample cannot be split.
        first = chunks(problem.batch, max(2, self.chunk))[0]
        self.refuse_coupled(what, replace(problem, batch=first))
        # A generator: the gradients of at most two chunks are in memory at a time.
        measured = (
            self._chunk(replace(problem, batch=part), structure)
            for part in chunks(problem.batch, self.chunk)
        )
        return reduce(Gradients.merged, measured)

    def _chunk(self, problem: Problem, structure: bool) -> Gradients:
        """Measure samples that go through the model at once."""
        count = problem.size
        if not structure:
            return self.estimator.loss_gradient(problem)
        if self.fraction == 1:
            return self.estimator.gradients(problem)
        if self.fraction is not None:
            what = f"fraction={self.fraction}"
            if count is None:
                raise ValueError(f"{what} needs the batch: use step(closure, *batch)")
            self.refuse_parts(what, problem.model)
            first = max(1, round(self.fraction * count))
            self.refuse_coupled(what, problem, first)
        elif count is None or not self.estimator.additive or mixing_modules(problem.model):
            return self.estimator.gradients(problem)
        else:
            first = max(1, round(USUAL_FRACTION * count))
            if (difference := self._difference(problem, count, first)) is not None:
                self.coupling.log_once(
                    f"the closure couples its samples, so the structure term is measured on the "
                    f"whole batch, as with fraction=1: {difference}"
                )
                return self.estimator.gradients(problem)
        inside, outside = random_parts(count, first, problem.generator)
        return self.estimator.gradients_on_part(problem, inside, outside)

    def _difference(self, problem: Problem, count: int, first: int) -> str | None:
        """Describe the first sample whose loss differs between a part and the whole batch.

        Args:
            problem: closure and batch.
            count: number of samples of the batch.
            first: number of samples of the part.
        """
        agreed = partial(self.estimator.agreed, problem)
        if not agreed(0 < first < count):
            return None
        return self.coupling.check(problem, torch.arange(first), agreed).difference

    def refuse_coupled(self, what: str, problem: Problem, first: int | None = None) -> None:
        """Refuse to split a batch whose samples the closure couples.

        Args:
            what: the option that splits the batch, for the message.
            problem: closure and batch.
            first: number of samples of the part that is tried; default half of them.

        Raises:
            ValueError: names the first sample whose loss differs, both losses and the cures.
        """
        count = problem.size or 0
        difference = self._difference(problem, count, count // 2 if first is None else first)
        if difference is not None:
            raise ValueError(
                f"{what} splits the batch, but the closure couples its samples: {difference}; "
                f"{CURES}"
            )

    def refuse_parts(self, what: str, model: nn.Module | None) -> None:
        """Refuse to split a batch, or to join micro-batches.

        Args:
            what: the option that splits the batch, for the message.
            model: the model behind the closure, if known.

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
