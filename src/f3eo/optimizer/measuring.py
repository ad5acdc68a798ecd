"""How an optimizer measures: one batch, micro-batches before a step, or another batch beside it."""

from abc import ABC
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.closure.coupling import Coupling
from f3eo.closure.loss_scale import LossScale
from f3eo.closure.problem import Closure, Problem
from f3eo.closure.snapshot import Snapshot
from f3eo.direction import Rule
from f3eo.fisher import Estimator, Gradients, Reduction
from f3eo.fisher.ghost.verify import refuse_hooks
from f3eo.fisher.parts import Measurement, NoSamples
from f3eo.fisher.reduction import Place, SingleProcess
from f3eo.optimizer.accumulated import write_gradients
from f3eo.optimizer.checks import check_closure, check_whole
from f3eo.optimizer.joined import parts_of, present_of
from f3eo.optimizer.measured import Change, Measured
from f3eo.optimizer.nonfinite import skip, skip_overflow
from f3eo.optimizer.notices import Notices
from f3eo.optimizer.parameters import Groups, Trained
from f3eo.optimizer.past import Past, Present
from f3eo.optimizer.wrapper import Wrapper
from f3eo.processes import AllReduce
from f3eo.strength import Strength


class Measuring(Wrapper, ABC):
    """L, g, h and Tr(D F D) of batches; `F3EO` descends them.

    Args:
        base, model, generator: see `Wrapper`.
        strength: whose notices about the losses are given.
        processes: group of the processes that make every step together; default all.
    """

    estimator: Estimator
    rule: Rule
    strength: Strength
    fraction: float | None
    every: int
    chunk: int | None
    past: Past | Sequence[Past]
    loss_scale: LossScale
    on_nonfinite: str

    def __init__(
        self,
        base: torch.optim.Optimizer,
        model: nn.Module | None,
        generator: torch.Generator | None,
        strength: Strength,
        processes: Any = None,
    ) -> None:
        super().__init__(base, model, generator)
        self._coupling = Coupling()
        self._scale = None if self.estimator.sharded else self.loss_scale
        self._notices = Notices(strength, self._scale)
        self._groups = Groups()
        self._error: Tensor | None = None
        self._reduction: Reduction = (
            SingleProcess() if self.estimator.sharded else AllReduce(processes)
        )

    def accumulate(self, closure: Closure, *batch: Any) -> Tensor:
        """Add one micro-batch's g and h to the coming `step()`.

        Micro-batches equal the one big batch, with `Sign` in expectation, since each draws its own
        signs. Afterwards .grad holds g of all of them, and `step()` takes it as it then is: a
        factor on it, as by `clip_grad_norm_`, counts for h, too. What `past` adds joins at `step()`
        once, after that: such a factor does not count for it (`max_norm` does).

        Of several processes each gathers its own, and .grad is that of one process until `step()`
        sums them. A factor on it must then be the same everywhere: clip by `max_norm`.

        Args:
            closure, batch: see `step`.

        Returns:
            the mean loss of the micro-batch, detached.

        Raises:
            TypeError, RuntimeError: as `step`.
            ValueError: a second micro-batch with an estimator that is no mean over samples.
        """
        trained = self._groups(self.param_groups)
        with self._shared(trained):
            return self._accumulate(closure, batch, trained)

    def _accumulate(self, closure: Closure, batch: tuple[Any, ...], trained: Trained) -> Tensor:
        check_closure(closure)
        check_whole(self.param_groups, sharded=self.takes_shards)
        self._notices.accumulates = True
        before = self._read_accumulated(trained, stacklevel=3)
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
        count = 1 if accumulated is None else accumulated.count + 1
        self._accumulated = write_gradients(measured, closure, batches, count)
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
        return Problem(
            closure,
            batch,
            *own,
            names=trained.names,
            scale=self._scale,
            on_output=self._notices,
        )

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
        due = self.steps % self._interval == 0
        structure = due and used and bool(trained.chosen)
        if structure and not self._reduction.alone:
            self._measurement().refuse_parts("a batch on several processes", None)
        problem = self._problem(closure, batch, trained)
        refuse_hooks(trained.parameters, problem.name, called=not used)
        squares = self.past and any([part.reads_squares for part in parts_of(self.past)])
        problem = replace(problem, squares=True) if squares else problem
        if self.takes_shards:
            self.estimator.check(problem)
        snapshot = Snapshot(problem)
        return Measured(self._gradients(problem, structure, snapshot), snapshot, trained)

    def _gradients(self, problem: Problem, structure: bool, snapshot: Snapshot) -> Gradients:
        """The gradients of a problem; an error puts back what the snapshot holds."""
        try:
            with torch.enable_grad():
                return self._measurement()(problem, structure=structure)
        except NoSamples:
            if self._reduction.alone:
                raise
            return Gradients.nothing(problem.parameters)
        except BaseException:
            snapshot.restore()
            raise

    @contextmanager
    def _shared(self, trained: Trained) -> Iterator[None]:
        """Context of what a process does by itself: its errors are told to the other ones.

        They make no step then, so that nothing stays accumulated for one.
        """
        try:
            yield
        except Exception as error:
            if not self._reduction.alone:
                self._accumulated = None
                self._reduction.fail(error, self._place(trained))
            raise

    def _place(self, trained: Trained, part: int = 0, change: Change | None = None) -> Place:
        own = trained.parameters, trained.structured, self.estimator
        change = change or Change()
        return Place(
            self.steps,
            *own,
            part=part,
            factor=change.factor,
            uniform=change.uniform,
            observed=bool(self._observers) and part == 0,
        )

    def _reduced(self, measured: Measured) -> Measured:
        """The measurement with the sums over all processes; an error restores the snapshot."""
        if self._reduction.alone:
            return measured
        change = measured.change
        try:
            place = self._place(measured.trained, change=change)
            gradients = self._reduction.reduce(measured.rescaled(), place)
        except BaseException:
            measured.snapshot.restore()
            raise
        # The factor is in g and in h now; that of the record is not known.
        change = change if change == Change() else Change(1.0, uniform=False)
        return replace(measured, gradients=gradients, change=change)

    def _skip(self, what: str, loss: float, measured: Measured) -> None:
        """Make no step, because something is not finite: all processes for the same reason.

        Args:
            what: is not finite.
            loss: L.
            measured: of the step.
        """
        largest = self._reduction.largest(self.loss_scale.factor, self._place(measured.trained))
        if isfinite(loss) and self.loss_scale.back_off(largest):
            skip_overflow(self, measured.snapshot, largest)
        else:
            skip(what, self, measured.snapshot, stacklevel=6)

    def _present(
        self, closure: Closure, batches: Sequence[tuple[Any, ...]], measured: Measured
    ) -> Present:
        """The batch of a step for the parts of the past, which may measure another one."""
        parts = count(1)

        def measure(batch: tuple[Any, ...] | None, structure: bool) -> Gradients | None:
            trained, snapshot = measured.trained, measured.snapshot
            gradients = Gradients.nothing(trained.parameters)
            if batch is not None:
                problem = self._problem(closure, batch, trained)
                gradients = self._gradients(problem, structure, snapshot)
            if not self._reduction.alone:
                place = self._place(trained, next(parts))
                gradients = self._reduction.reduce(gradients, place)
            return None if gradients.empty else gradients

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
                "step() without a closure needs accumulate(closure, *batch) before it, and no "
                "loss.backward() (in place of accelerator.backward(loss): backward(optimizer, "
                "closure, *batch) of f3eo.integrations.accelerate)"
            )
        self._notices.warn_of_division(accumulated.count, stacklevel=stacklevel + 1)
        return measured, accumulated.closure, accumulated.batches

    def _read_accumulated(self, trained: Trained, stacklevel: int) -> Measured | None:
        """What was accumulated, as .grad holds it now; None if nothing was."""
        if self._accumulated is None:
            return None
        found = self._accumulated.read(trained)
        if found is not None and not found.change.uniform:
            self._notices.warn_of_change(stacklevel=stacklevel + 1)
        return found
