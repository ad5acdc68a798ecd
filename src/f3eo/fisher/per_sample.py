"""The exact per-sample estimator, the default."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge

from f3eo.closure.output import Shares
from f3eo.closure.problem import Problem
from f3eo.closure.replay import Replay
from f3eo.closure.residuals import outputs_of
from f3eo.curvature import DoubleBackward, Engine, FiniteDifference
from f3eo.curvature.guard import Coarse, Differs, Guard, NotRepeatable
from f3eo.fisher.accuracy import LIMIT
from f3eo.fisher.differences import second_pass
from f3eo.fisher.emphasis import Emphasis, Uniform
from f3eo.fisher.estimand import Gradients
from f3eo.fisher.estimator import Estimator
from f3eo.fisher.ghost import Ghost, record
from f3eo.fisher.ghost.gradients.norms import Norms
from f3eo.fisher.ghost.layouts import Known, Layouts
from f3eo.fisher.ghost.recording.recording import Recording
from f3eo.fisher.metric import Euclidean, Metric
from f3eo.fisher.parameters import by_parameter
from f3eo.fisher.per_sample_exact import attached_trace, exact_gradients
from f3eo.fisher.quantity import Quantity
from f3eo.fisher.sample_norms import SampleNorms
from f3eo.fisher.watch import Watch

logger = logging.getLogger("f3eo")


class PerSample(Estimator):
    """Exact Tr(D F̂ D) and ∇L, and h to the precision of the engine (`f3eo.fisher.estimand`).

    `gradients` is three calls:

        1.  evaluate the closure, recorded:  ℓ_1, …, ℓ_B
        2.  differentiate per sample:        ∇L = Σ_i ω_i ∇ℓ_i,  ‖D ∇ℓ_i‖,  Σ_i ω_i ‖D ∇ℓ_i‖²
        3.  second pass, samples moved:      s_i = ε a_i ‖D ∇ℓ_i‖^(p−2)
                                         h = (1/ε) Σ_i ω_i (∇ℓ_i(θ + s_i D² ∇ℓ_i) − ∇ℓ_i(θ))

    Step 2 needs gradients in pre-activations alone (`f3eo.fisher.ghost`). Every operation that
    takes parameters is covered, by a rule (`f3eo.extend.register_layer`) or by exact torch.func
    gradients, which is logged. On the first batch, and from time to time (`f3eo.fisher.watch`), the
    result is compared with gradients of single samples.

    Step 3 depends on the engine:

    - `FiniteDifference()`, the default: as above. Piecewise linear operations stay on their piece,
      so ReLUs add no error. The expected relative error of h is `Gradients.error`: about 1e-3 in
      float32 for losses near 1, √(u/ℓ) for small ones (`f3eo.fisher.accuracy`). The cost is 6
      forward passes; a plain gradient costs 3.
    - `DoubleBackward()`: h = (1/p)∇ Σ_i ω_i a_i ‖D ∇ℓ_i‖^p by one backward pass through steps 1
      and 2, exact to rounding: 7 forward passes and the memory of two graphs. It replaces
      differences, and the log says so once, if their expected error is above 1 % (float32 losses
      below 5e-3); in 16 bits; if gradients take more than `memory`; and if the second pass is not
      the same function or its differences are no Hessian products (`f3eo.curvature.guard`).

    At p = 1 every sample moves by the same distance (SAM's direction for batches of one). At p = 2
    samples with large gradients, such as mislabelled ones, count most.

    Args:
        engine: computes h; default `FiniteDifference()`.
        metric: D of the trace Tr(D F D) (`f3eo.fisher.metric`); default `Euclidean()`, D = 1.
        power: p, in [1, 2]; default 1.
        emphasis: a_i, how much each sample counts in h; default `Uniform()`.
        hold_residuals: whether ∂ℓ_i/∂f_i is held where the norms are differentiated, so that h is
            that of the Jacobian alone (`f3eo.closure.residuals`). It is not held, which is logged,
            where the graph of the losses does not show what their outputs f are. Default False.
            Source: 2405.03676, 2502.02407.
        memory: bytes that materialized per-sample gradients may take at a time; default 256 MiB.

    Raises:
        TypeError: the engine is neither of the two.
        ValueError: memory is not positive, or power is out of range.
    """

    additive = True
    measures_squares = True

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        metric: Metric | None = None,
        power: float = 1.0,
        emphasis: Emphasis | None = None,
        hold_residuals: bool = False,
        memory: int = 2**28,
    ) -> None:
        engine = engine if engine is not None else FiniteDifference()
        if not isinstance(engine, (FiniteDifference, DoubleBackward)):
            raise TypeError(
                f"PerSample needs engine=FiniteDifference() or DoubleBackward(), received "
                f"{engine!r}"
            )
        if not memory > 0:
            raise ValueError(f"PerSample needs memory > 0 bytes, received {memory}")
        if not 1 <= power <= 2:
            raise ValueError(f"PerSample needs a power in [1, 2], received {power}")
        if metric is not None and not isinstance(metric, Metric):
            raise TypeError(
                f"PerSample needs a metric: Euclidean(), ByRow(), Factored() or Elementwise(), "
                f"received {metric!r}"
            )
        if emphasis is not None and not isinstance(emphasis, Emphasis):
            raise TypeError(
                f"PerSample needs an emphasis: Uniform(), ByFit() or ByMisfit(), received "
                f"{emphasis!r}"
            )
        self.engine = engine
        self.metric = metric if metric is not None else Euclidean()
        self.power = power
        self.emphasis = emphasis if emphasis is not None else Uniform()
        self.hold_residuals = hold_residuals
        self.memory = memory
        self._guard = Guard(Coarse, cure=", or estimator=Sign(FiniteDifference())")
        self.forget()

    @property
    def quantity(self) -> Quantity:
        """What h is the gradient of."""
        return Quantity(self.power, self.emphasis, self.hold_residuals)

    @property
    def relative(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.relative`."""
        return not isinstance(self.metric, Euclidean)

    @property
    def takes_differences(self) -> bool:
        """Whether finite differences compute the next h, as far as is known."""
        return isinstance(self.engine, FiniteDifference) and self._guard.allows_differences

    @property
    def forwards(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.forwards`."""
        return 3.0 + self.engine.forwards if self.takes_differences else 7.0

    def size(self, parameters: Sequence[Tensor]) -> int:
        """See `Estimator.size`: without places where D is 0 by the metric's choice."""
        return self.metric.size(parameters)

    def counters(self) -> Mapping[str, int]:
        """See `Estimator.counters`: batches on which differences failed."""
        return {"coarse": self._guard.coarse, "alarms": self._guard.alarms}

    def adopt(self, counters: Mapping[str, int]) -> None:
        """See `Estimator.adopt`."""
        self._guard.adopt(counters)

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """See `Estimator.forget`: layouts, checks, and whether differences serve."""
        self._known: Known = {}
        self._watch = Watch()
        self._guard.reset(counters)
        self._logged = False  # that residuals are not held
        self._numpy = False  # whether the closure draws from numpy

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_known": {}, "_watch": Watch()}

    def record(
        self, problem: Problem, *, differentiable: bool = True, check: bool = False
    ) -> Ghost:
        """Evaluate the closure and record what per-sample gradients need.

        Args:
            problem: closure, batch and parameters.
            differentiable: whether the norms are differentiated.
            check: whether layouts are determined anew.
        """
        recording = record(problem, differentiable=differentiable)
        layouts = Layouts(recording, problem, self.memory, self._known, check=check)
        diagonals = self.metric.of(problem.structured_parameters)
        outputs = self._outputs(recording) if self.hold_residuals else None
        return Ghost(problem, recording, layouts, self.memory, diagonals, outputs)

    def _outputs(self, recording: Recording) -> list[GradientEdge] | None:
        """Where residuals are held; None, logged once, where the graph does not tell."""
        outputs = outputs_of(recording.output.losses)
        if outputs is not None and recording.stands_before(outputs):
            return outputs
        if not self._logged:
            self._logged = True
            logger.info(
                "residuals are not held: the losses are none that are known (cross-entropies, "
                "squared and absolute errors, logarithms of softmax or sigmoid), or are computed "
                "for all samples before the batch chooses some (model(x)[i] in place of "
                "losses[i]); h is that of the whole loss"
            )
        return None

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        check = not problem.repeatable and self._watch.due(problem)
        engine = self.engine
        replay = Replay(
            lambda: self.record(problem, differentiable=False, check=check),
            problem,
            numpy=check or self._numpy,
        )
        if not (isinstance(engine, FiniteDifference) and self._guard.allows_differences):
            return exact_gradients(self.record(problem, check=check), problem, self.quantity)

        def by_differences(forced: bool) -> Gradients:
            nonlocal check
            ghost = replay()  # 1
            replay.generators |= ghost.recording.generators
            self._numpy = self._numpy or (check and replay.numpy_random_changed())
            try:
                first = ghost.keep()  # 2
                del ghost  # with its graph
                return second_pass(
                    replay, first, problem, engine, self.quantity, forced=forced
                )  # 3
            except Differs as refusal:
                # The closure may have begun to draw from numpy, whose state is put back from now
                # on; only then is it known to differ.
                refusal.counts, self._numpy, check = self._numpy, True, True
                raise

        def by_double_backward() -> Gradients:
            return replay.rerun(
                lambda: exact_gradients(self.record(problem, check=check), problem, self.quantity)
            )

        return self._guard.compute(by_differences, by_double_backward)

    def note_error(self, gradients: Gradients) -> None:
        """Count a compiled measurement by differences whose expected error is above `LIMIT`."""
        error = gradients.error
        if self.takes_differences and error is not None and float(error) > LIMIT:
            self._guard.coarse += 1

    def trace(self, problem: Problem, *, differentiable: bool = True) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`; exact, whatever the engine."""
        if differentiable:
            return attached_trace(self.record(problem))
        losses, shares, norms, _ = self._detached_norms(problem)
        return shares.rescale(losses), shares.trace(norms.squared)

    def first_order(self, problem: Problem) -> Gradients:
        """L, ∇L, Tr(D F D) and the norms of all samples: all but h, detached.

        Exact, whatever the engine. No graph of the gradient is built, and fused kernels stay in
        use.

        Args:
            problem: closure, batch and parameters.

        Raises:
            ValueError, TypeError: as `gradients`.
        """
        losses, shares, norms, euclidean = self._detached_norms(problem)
        return Gradients(
            loss=shares.mean(losses),
            weight=shares.total,
            gradient=by_parameter(norms.totals, problem.parameters),
            structure=None,
            trace=shares.trace(norms.squared),
            norms=SampleNorms.of(shares, norms.by_leaf, euclidean),
        )

    def _detached_norms(self, problem: Problem) -> tuple[Tensor, Shares, Norms, Tensor | None]:
        """ℓ_i, ω_i, norms and sums of ω_i ∇ℓ_i, and ω_i² ‖∇ℓ_i‖² if it is known, (B,)."""
        replay = Replay(lambda: self.record(problem, differentiable=False), problem)
        ghost = replay()
        replay.generators |= ghost.recording.generators
        # The fastest way materializes gradients. Where it does not apply, norms need no more of
        # the closure than a recording.
        with suppress(NotRepeatable):
            first = ghost.keep()
            return first.losses, first.shares, first.gradients, first.gradients.euclidean
        del ghost
        ghost = replay()
        losses, shares = ghost.losses.detach(), ghost.output.shares
        factor = problem.factor
        norms = ghost.loss_norms(shares.as_tensor(losses, factor)).over(factor)
        return losses, shares, norms, None if ghost.diagonals else norms.squared
