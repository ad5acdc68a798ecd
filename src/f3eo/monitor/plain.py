"""A measurement beside any optimizer: a part of a batch, and the run goes on as if it were not."""

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from f3eo.closure.batch import random_parts
from f3eo.closure.mixing import mixing_modules
from f3eo.closure.problem import Closure, Problem
from f3eo.closure.snapshot import RandomStates, Snapshot, accelerators
from f3eo.direction import InnerProducts
from f3eo.fisher import Metric, PerSample, plain_gradient
from f3eo.optimizer import StepRecord
from f3eo.tensors import squared_norm


class Plain:
    """Measures L, ∇L, Tr(D F̂ D) and the norms of single samples on a random part of a batch.

    Buffers, .grad and random states, numpy's included, are put back. The model is measured in the
    mode that it is in, so with its dropout where it trains.

    Where a BatchNorm mixes the samples there are no gradients of single samples: L and ∇L alone
    are measured then, and a warning says so once.

    Args:
        model: whose parameters are measured; those that require no gradient do not count.
        closure: returns per-sample losses, `Weighted` or a likelihood.
        samples: largest number of samples that are measured.
        metric: D.
        generator: source of the part.
    """

    def __init__(
        self,
        model: nn.Module,
        closure: Closure,
        samples: int,
        metric: Metric | None,
        generator: Generator,
    ) -> None:
        self.model = model
        self.closure = closure
        self.samples = samples
        self.generator = generator
        self._estimator = PerSample(metric=metric)
        self._warned = False

    def __call__(self, number: int, batch: tuple[Any, ...]) -> StepRecord:
        """Measure a batch.

        Args:
            number: of the step, from 0.
            batch: arguments of the closure.

        Raises:
            ValueError, TypeError: as `fisher_trace`; the batch holds no samples.
        """
        problem = self._part(batch)
        before = Snapshot(problem, RandomStates(accelerators(problem), numpy=True))
        try:
            with torch.enable_grad():
                if self._mixes():
                    found = plain_gradient(problem, per_sample=True)
                else:
                    found = self._estimator.first_order(problem)
        finally:
            before.restore()
        squared = float(squared_norm([g for g in found.gradient if g is not None]))
        return StepRecord(
            number=number,
            loss=found.loss,
            parameters=problem.parameters,
            names=[name for name, p in self.model.named_parameters() if p.requires_grad],
            gradient=found.gradient,
            structure=None,
            squared=squared,
            products=InnerProducts(squared, 0.0, 0.0),
            trace=found.trace,
            norms=found.norms,
        )

    def _part(self, batch: tuple[Any, ...]) -> Problem:
        parameters: list[Tensor] = [p for p in self.model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError(
                "no parameter of the model has requires_grad=True: there is nothing to watch"
            )
        structured = [True] * len(parameters)
        problem = Problem(self.closure, batch, parameters, structured, self.model)
        count = problem.size
        if count == 0:
            raise ValueError("the batch holds no samples: leave it out")
        if count is None or count <= self.samples:
            return problem
        chosen, _ = random_parts(count, self.samples, self.generator)
        return replace(problem.part(chosen.sort().values), generator=None)

    def _mixes(self) -> bool:
        names = mixing_modules(self.model)
        if names and not self._warned:
            self._warned = True
            warnings.warn(
                f"{', '.join(names[:3])} normalise(s) with the statistics of the batch, so there "
                f"are no gradients of single samples: the monitor measures loss and gradient norm "
                f"alone; .eval() on these modules, or GroupNorm, would give the rest",
                stacklevel=4,
            )
        return bool(names)
