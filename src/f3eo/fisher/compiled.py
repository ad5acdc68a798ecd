"""An estimator whose measurements are recorded once and run as one compiled graph."""

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import (
    _get_current_dispatch_mode_stack as get_current_dispatch_mode_stack,
)

from f3eo.closure.problem import Problem
from f3eo.closure.replay import Replay
from f3eo.closure.snapshot import Snapshot
from f3eo.fisher.around import Around
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.graph import Graph, Measure, agree, recorded
from f3eo.fisher.kinds import Alike, Kind, Recording, kind_of
from f3eo.fisher.lengths import Places
from f3eo.fisher.per_sample import PerSample
from f3eo.shown import call

KINDS = 8
"""Largest number of kinds of measurement that are kept: closures times shapes of batches."""


class Compiled(Around):
    """`PerSample` recorded once and run as one graph by `torch.compile`.

    The results are equal to rounding, without Python between the operations: on small networks a
    step takes a third of the time, on large ones a tenth less (docs/performance.md).

    A recording is made when a closure meets a batch of some shapes for the second time, and takes
    from some seconds to a minute or two; the smaller last batch of an epoch is another shape. Where
    other sizes than the number of samples vary, as lengths of sequences do, one recording holds for
    all of them (`f3eo.fisher.symbols`). From then on the closure is not called, so it must be the
    same function at every step, of parameters, buffers and batch alone; numbers that change from
    step to step belong into the batch. Dropout draws what it draws uncompiled. At uses 1, 2, 4, …
    (2^k) the recording is compared with the estimator itself.

    What cannot be recorded runs uncompiled, with one warning: a closure that is defined anew at
    every step, takes no batch, branches on values, writes into buffers, or draws random numbers
    from a generator of its own or inside of a fused operation. A closure that asks
    `torch.compiler.is_compiling()` is told so.

    Args:
        estimator: default `PerSample()`.
        backend: of `torch.compile`; default "inductor", which needs a C++ compiler on CPUs. None
            runs the recorded operations one by one, with half of the gain and no compilation.

    Raises:
        TypeError: the estimator is no `PerSample`.
    """

    additive = True
    measures_squares = True

    def __init__(
        self, estimator: PerSample | None = None, *, backend: str | None = "inductor"
    ) -> None:
        estimator = estimator if estimator is not None else PerSample()
        if not isinstance(estimator, PerSample):
            raise TypeError(
                f"Compiled needs a PerSample, received {estimator!r}: other estimators draw anew "
                f"at every step or write into the parameters"
            )
        super().__init__(estimator)
        self.backend = backend
        self._kinds: dict[Any, Recording | None] = {}
        self._lengths: dict[Any, Alike] = {}
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return call(self, always=("estimator",))  # it defines the method

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kinds": {}, "_lengths": {}}

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """See `Estimator.forget`; recordings are made again."""
        super().forget(counters)
        self._kinds, self._lengths = {}, {}

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        return self._measure(self.estimator.gradients, problem)

    def loss_gradient(self, problem: Problem) -> Gradients:
        """See `Estimator.loss_gradient`."""
        return self._measure(self.estimator.loss_gradient, problem)

    def gradients_on_part(self, problem: Problem, inside: Tensor, outside: Tensor) -> Gradients:
        """See `Estimator.gradients_on_part`."""
        return self._measure(self.estimator.gradients_on_part, problem, inside, outside)

    def trace(self, problem: Problem, *, differentiable: bool = True) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`; never compiled."""
        return self.estimator.trace(problem, differentiable=differentiable)

    def _measure(self, measure: Measure, problem: Problem, *index: Tensor) -> Gradients:
        """Run a method of the estimator, recorded from the second time on."""
        recording = self._recording(measure, problem, *index)
        if recording is None:
            return measure(problem, *index)
        recording.uses += 1
        if recording.graph is None:
            return measure(problem, *index)
        if recording.uses & (recording.uses - 1):
            gradients = recording.graph(problem, *index)
            self.estimator.note_error(gradients)
            return gradients
        return self._compare(measure, recording, problem, *index)

    def _recording(self, measure: Measure, problem: Problem, *index: Tensor) -> Recording | None:
        """The recording of a measurement, made if it is due; None where there is none."""
        if get_current_dispatch_mode_stack():  # a mode, such as a counter, must see operations
            return None
        if problem.size is None:
            self._warn("the closure takes no batch: use step(closure, *batch)")
            return None
        taken = measure.__name__, *map(len, index), self.estimator.takes_differences
        kind = kind_of(problem, *taken)
        if (recording := self._kinds.get(kind.exact)) is not None:
            return recording
        alike = self._alike(kind)
        if (recording := alike.find(kind.sizes)) is not None:
            return recording
        if places := alike.meet(kind.sizes, KINDS):
            graph = self._record(measure, problem, *index, places=places)
            if isinstance(graph, Graph):
                alike.recordings.append(Recording(graph))
                return alike.recordings[-1]
            alike.possible = False
            self._warn(f"batches of other lengths need a recording each: {graph}")
        if not self._is_known(kind.exact):
            return None
        graph = self._record(measure, problem, *index)
        if not isinstance(graph, Graph):  # it stopped the recorder, and not the estimator
            self._warn(graph)
            graph = None
        self._kinds[kind.exact] = Recording(graph)
        return self._kinds[kind.exact]

    def _alike(self, kind: Kind) -> Alike:
        """What is known of the kinds that differ from this one in lengths alone."""
        if kind.alike not in self._lengths:
            if len(self._lengths) == KINDS:
                del self._lengths[next(iter(self._lengths))]
            self._lengths[kind.alike] = Alike(kind.sizes)
        return self._lengths[kind.alike]

    def _is_known(self, exact: Any) -> bool:
        """Whether this kind of measurement was met before; it is kept if not."""
        if exact in self._kinds:
            return True
        if len(self._kinds) == KINDS:
            single = next((k for k, recording in self._kinds.items() if recording is None), None)
            if single is None:
                self._warn(f"batches have more than {KINDS} shapes")
                return False
            del self._kinds[single]
            self._warn(
                "the closure is another function at every step, or batches have ever new shapes: "
                "define it once, before the loop"
            )
        self._kinds[exact] = None
        return False

    def _record(
        self, measure: Measure, problem: Problem, *index: Tensor, places: Places = frozenset()
    ) -> Graph | str:
        """Record a measurement, and leave the surroundings of the closure as they are.

        Returns:
            What was recorded, or why nothing was.
        """
        snapshot = Snapshot(problem)
        try:
            graph = recorded(measure, problem, *index, places=places)
        except Exception as error:
            return _line(error)
        finally:
            snapshot.restore()
        if self.backend is not None:
            graph.compile(self.backend)
        return graph

    def _compare(
        self, measure: Measure, recording: Recording, problem: Problem, *index: Tensor
    ) -> Gradients:
        """The estimator's own result; a recording that differs from it is dropped."""
        graph = recording.graph
        assert graph is not None
        replay = Replay(lambda: measure(problem, *index), problem)
        truth = replay()
        try:
            result = replay.rerun(lambda: graph(problem, *index))
        except Exception as error:  # no compiler, or an operation that the backend lacks
            reason = _line(error)
        else:
            if agree(result, truth, structure=recording.uses == 1):
                return truth
            reason = (
                "the closure gives other numbers than at its recording: what changes from step to "
                "step belongs into its batch"
            )
        self._warn(reason)
        recording.graph = None
        return truth

    def _warn(self, reason: str) -> None:
        """Warn of an uncompiled step, once for every reason."""
        if reason not in self._warned:
            self._warned.add(reason)
            warnings.warn(f"Compiled runs a step uncompiled: {reason}", stacklevel=2)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
