"""The per-sample estimator on a model that `fully_shard` has sharded over processes."""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from f3eo.closure.evaluate import evaluate
from f3eo.closure.problem import Problem
from f3eo.closure.replay import Replay
from f3eo.curvature import FiniteDifference
from f3eo.curvature.guard import Refusal
from f3eo.fisher import ByRow, Gradients, PerSample
from f3eo.fisher.around import Around
from f3eo.fisher.ghost.layouts import Known
from f3eo.fisher.ghost.recording.recording import record
from f3eo.fisher.ghost.verify import refuse_hooks
from f3eo.fisher.watch import Watch
from f3eo.integrations.fsdp.difference import structure_of
from f3eo.integrations.fsdp.metric import diagonals
from f3eo.integrations.fsdp.passes import Together, backward, first_pass
from f3eo.integrations.fsdp.units import Units

logger = logging.getLogger("f3eo")


class Sharded(Around):
    """`PerSample` on a model of `fully_shard`: estimates from the batches of all processes.

        L = Σ_r (W_r/W) L_r     ∇L = Σ_r (W_r/W) ∇L_r     h, Tr(D F D) likewise

    with W_r = Σ w_i over the samples of process r, and W = Σ_r W_r. It takes two ordinary backward
    passes, in which `fully_shard` gathers parameters and reduces gradients as always. In the
    second, every sample has parameters of its own (`f3eo.fisher.differences`), made from what the
    first one kept on that process. All processes return the same numbers, gradients as DTensors.

    A step that measures gathers parameters and reduces gradients twice as often as a plain step,
    and a step between as often; either sums a few numbers besides. A check (`f3eo.fisher.watch`)
    takes a backward pass more for each sample that it probes, and memory for the whole gradient.

    Every process gives a batch of its own with at least one sample, and measures at the same steps.
    Parts that are checkpointed keep their activations while h is measured. h is not compared with
    double backward, which `fully_shard` does not have (pytorch#120926).

    Args:
        estimator: what is measured; default `PerSample(metric=ByRow(), hold_residuals=True)`, as
            `F3EO` has it.

    Raises:
        TypeError: an estimator that is no `PerSample`.
        NotImplementedError: `PerSample(DoubleBackward())`.

    Source: `PerSample`; FSDP2, Zhao et al. 2023 (2304.11277).
    """

    additive = True
    sharded = True

    def __init__(self, estimator: PerSample | None = None) -> None:
        if estimator is None:
            estimator = PerSample(metric=ByRow(), hold_residuals=True)
        if not isinstance(estimator, PerSample):
            raise TypeError(
                f"Sharded() measures by PerSample(), received {estimator!r}; other estimators "
                f"train on one process, without fully_shard"
            )
        if not isinstance(estimator.engine, FiniteDifference):
            raise NotImplementedError(
                f"fully_shard has no double backward (pytorch#120926), received {estimator!r}: use "
                f"PerSample(FiniteDifference())"
            )
        super().__init__(estimator)
        self.forget()

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """See `Estimator.forget`."""
        super().forget(counters)
        self._known: Known = {}
        self._watch = Watch()
        self._coarse = False  # whether it has been logged that differences are

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_known": {}, "_watch": Watch()}

    def check(self, problem: Problem) -> None:
        """See `Estimator.check`; on every process if on one.

        Raises:
            ValueError, NotImplementedError: the model, its shards or the batch; with the cure.
        """
        units, error = _units(problem), None
        if not problem.size:
            error = ValueError(
                "Sharded() needs the batch of every process, with one sample at least: use "
                "step(closure, *batch), and a sampler that gives all processes as many batches "
                "(drop_last=True)"
            )
        units.refuse_together(error)

    def agreed(self, problem: Problem, answer: bool) -> bool:
        """See `Estimator.agreed`."""
        return _units(problem).any(answer)

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`.

        Raises:
            RuntimeError: no second pass is possible; with the cure.
        """
        units = _units(problem)
        inner = units.inside(problem)
        check = units.any(self._watch.due(problem))
        own, length = diagonals(self.estimator.metric, problem.structured_parameters, units)
        with units.passes(problem.parameters, recorded=True):
            replay = Replay(lambda: record(inner, differentiable=False), inner)
            recording = replay()
            replay.generators |= recording.generators
            parts = self.estimator, own, self._known
            try:
                first = first_pass(recording, units, problem, inner, *parts, check=check)
                del recording  # with its graph
                return structure_of(first, replay, units, problem, inner, self.estimator, length)
            except Refusal as refusal:
                raise RuntimeError(
                    f"h cannot be computed by finite differences ({refusal}) nor by double "
                    f"backward, which fully_shard does not have (pytorch#120926): change what the "
                    f"message names, or use the base optimizer alone"
                ) from refusal

    def loss_gradient(self, problem: Problem) -> Gradients:
        """See `Estimator.loss_gradient`."""
        units = _units(problem)
        with units.passes(problem.parameters, recorded=False):
            output = evaluate(units.inside(problem), per_sample=True, differentiable=False)
            losses = output.losses
            together = Together.of(output.shares, losses, units)
            _, gradient = backward([losses], [together.cotangent(losses)], problem)
            loss = units.sums(together.mean(losses.detach()))
        return Gradients(loss.to(losses), together.total, gradient, None, None)

    def trace(self, problem: Problem, *, differentiable: bool = True) -> tuple[Tensor, Tensor]:
        """Not made for sharded models.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "the trace alone is not measured on a sharded model: read optimizer.trace after a "
            "step, or measure on one process with PerSample()"
        )


def _units(problem: Problem) -> Units:
    """The units of the problem, checked.

    Raises:
        ValueError: a parameter with a hook on its gradient; see `Units`.
    """
    refuse_hooks(problem.parameters, problem.name)
    return Units(problem)
