"""How an optimizer measures: one batch, micro-batches before a step, or another batch beside it."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.closure.coupling import Coupling
from f3eo.closure.problem import Closure, Problem
from f3eo.closure.snapshot import Snapshot
from f3eo.direction import Rule
from f3eo.fisher import Estimator, Gradients, Reduction, SingleProcess
from f3eo.fisher.parts import Measurement
from f3eo.optimizer.accumulated import write_gradients
from f3eo.optimizer.checks import check_alone, check_closure
from f3eo.optimizer.joined import parts_of, present_of
from f3eo.optimizer.measured import Measured
from f3eo.optimizer.notices import Notices
from f3eo.optimizer.parameters import Groups, Trained
from f3eo.optimizer.past import Past, Present
from f3eo.optimizer.wrapper import Wrapper
from f3eo.strength import Strength


class Measuring(Wrapper, ABC):
    """L, g, h and Tr(D F D) of batches; `F3EO` descends them.

    Args:
        base, model, generator: see `Wrapper`.
        strength: whose notices about the losses are given.
    """

    estimator: Estimator
    rule: Rule
    strength: Strength
    fraction: float | None
    every: int
    chunk: int | None
    past: Past | Sequence[Past]

    def __init__(
        self,
        base: torch.optim.Optimizer,
        model: nn.Module | None,
        generator: torch.Generator | None,
        strength: Strength,
    ) -> None:
        super().__init__(base, model, generator)
        self._coupling = Coupling()
        self._notices = Notices(strength)
        self._groups = Groups()
        self._error: Tensor | None = None
        self._reduction: Reduction = SingleProcess()

    def accumulate(self, closure: Closure, *batch: Any) -> Tensor:
        """Add one micro-batch's g and h to the coming `step()`.

        Micro-batches equal the one big batch, with `Sign` in expectation, since each draws its own
        signs. Afterwards .grad holds g of all of them, and `step()` takes it as it then is: a
        factor on it, as by `clip_grad_norm_`, counts for h, too. What `past` adds joins at `step()`
        once, after that: such a factor does not count for it (`max_norm` does).

        Args:
            closure, batch: see `step`.

        Returns:
            the mean loss of the micro-batch, detached.

        Raises:
            TypeError, RuntimeError: as `step`.
            ValueError: a second micro-batch with an estimator that is no mean over samples.
        """
        check_closure(closure)
        trained = self._groups(self.param_groups)
        check_alone(self.param_groups, sharded=self.takes_shards)
        before = self._read_accumulated(trained, stacklevel=2)
        accumulated = self._accumulated if before is not None else None
        try:
            if before is not None:
                self._measurement().refuse_parts("a second micro-batch", self.model)
                problem = self._problem(closure, batch, trained)
                self._measurement().refuse_coupled("a second micro-batch", problem)
            used = self.strength.scheduled(self.steps) > 0
            measured = self._measure(closure, batch, trained, used)
        finally:
            self._accumulated = accumulated  # a zero_grad() in the closure does not clear it
        loss = measured.gradients.loss
        if before is not None:
            measured = replace(before, gradients=before.rescaled().merged(measured.gradients))
        earlier = () if accumulated is None else accumulated.batches
        batches = (*earlier, batch) if self.past else ()
        self._accumulated = write_gradients(measured, closure, batches)
        return loss

    @property
    def takes_shards(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether its parameters may be DTensors, as the estimator says."""
        return self.estimator.sharded

    @property
    def gradient_equivalents(self) -> float:
        """Cost of one step in plain gradients, counted in forward passes (3 a gradient).

        Without what `past` measures, a batch of its own at every step that needs one.
        """
        cost = self._measurement().gradient_equivalents(self._interval)
        return cost if self.strength.value else 1.0

    @property
    def structure_error(self) -> float | None:
        """Expected relative error of the h last measured, but for kinks; None if not known."""
        return None if self._error is None else float(self._error)

    def _problem(self, closure: Closure, batch: tuple[Any, ...], trained: Trained) -> Problem:
        own = trained.parameters, trained.structured, self.model, self.generator
        return Problem(closure, batch, *own, names=trained.names, on_output=self._notices)

    @property
    def _interval(self) -> int:
        """Steps from one measurement to the next; a rule without g measures at every one."""
        return 1 if self.rule.replaces_gradient else self.every

    def _measurement(self) -> Measurement:
        return Measurement(self.estimator, self.fraction, self.chunk, self._coupling)

    def _measure(
        self, closure: Closure, batch: tuple[Any, ...], trained: Trained, used: bool
    ) -> Measured:
        """L and g of a batch, and h where it is due and the strength uses it."""
        problem = self._problem(closure, batch, trained)
        squares = any([part.reads_squares for part in parts_of(self.past)])
        problem = replace(problem, squares=True) if squares else problem
        self.estimator.check(problem)
        snapshot = Snapshot(problem)
        due = self.steps % self._interval == 0
        structure = due and used and bool(trained.chosen)
        return Measured(self._gradients(problem, structure, snapshot), snapshot, trained)

    def _gradients(self, problem: Problem, structure: bool, snapshot: Snapshot) -> Gradients:
        """The gradients of a problem; an error puts back what the snapshot holds."""
        try:
            with torch.enable_grad():
                gradients = self._measurement()(problem, structure=structure)
                return self._reduction.reduce(gradients)
        except BaseException:
            snapshot.restore()
            raise

    def _present(
        self, closure: Closure, batches: Sequence[tuple[Any, ...]], measured: Measured
    ) -> Present:
        """The batch of a step for the parts of the past, which may measure another one."""

        def measure(batch: tuple[Any, ...], structure: bool) -> Gradients:
            problem = self._problem(closure, batch, measured.trained)
            return self._gradients(problem, structure, measured.snapshot)

        return present_of(measured, batches, measure)

    def _gathered(
        self, trained: Trained, stacklevel: int
    ) -> tuple[Measured, Closure, Sequence[tuple[Any, ...]]]:
        """What was accumulated, with its closure and batches; it is used up.

        Raises:
            RuntimeError: nothing was.
        """
        accumulated = self._accumulated
        measured = self._read_accumulated(trained, stacklevel=stacklevel + 1)
        self._accumulated = None
        if measured is None or accumulated is None:
            raise RuntimeError(
                "step() without a closure needs accumulate(closure, *batch) before it"
            )
        return measured, accumulated.closure, accumulated.batches

    def _read_accumulated(self, trained: Trained, stacklevel: int) -> Measured | None:
        """What was accumulated, as .grad holds it now; None if nothing was."""
        if self._accumulated is None:
            return None
        found = self._accumulated.read(trained)
        if found is not None and not found.change.uniform:
            self._notices.warn_of_change(stacklevel=stacklevel + 1)
        return found
