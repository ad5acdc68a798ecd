"""How a batch is measured: whole, in chunks, or with the structure term on a random part of it."""

from dataclasses import dataclass, replace
from functools import reduce

from torch import nn

from f3eo import batch as batches
from f3eo.evaluation import Problem, mixing
from f3eo.fisher import Estimator, Gradients

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
    """

    estimator: Estimator
    fraction: float | None
    chunk: int | None

    def __call__(self, problem: Problem, *, structure: bool) -> Gradients:
        """Measure a batch.

        Args:
            problem: closure, batch and parameters.
            structure: whether h is wanted.

        Raises:
            ValueError: an empty batch, or parts of a batch that cannot be had.
        """
        count = batches.size(problem.batch)
        if count == 0:
            raise ValueError(
                "the batch holds no samples: its mean loss is not defined; leave it out"
            )
        if self.chunk is None or (count is not None and count <= self.chunk):
            return self._chunk(problem, count, structure)
        if count is None:
            raise ValueError(f"chunk={self.chunk} needs the batch: use step(closure, *batch)")
        self.refuse_parts(f"chunk={self.chunk}", problem.model)
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
            splits = count is not None and self.estimator.additive and not mixing(problem.model)
            fraction = USUAL_FRACTION if splits else 1.0
        if fraction == 1:
            return self.estimator.gradients(problem)
        if count is None:
            raise ValueError(f"fraction={fraction} needs the batch: use step(closure, *batch)")
        self.refuse_parts(f"fraction={fraction}", problem.model)
        first = max(1, round(fraction * count))
        inside, outside = batches.random_parts(count, first, problem.generator)
        return self.estimator.gradients_on_part(problem, inside, outside)

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
        if names := mixing(model):
            raise ValueError(
                f"{what} splits the batch, but {', '.join(names[:3])} use(s) the statistics of all "
                f"of it: freeze them with .eval(), or replace them by GroupNorm"
            )
