"""The exact per-sample trace, (1/B) Σ_i ‖∇ℓ_i‖²."""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.graph import refuse_once_differentiable
from f3eo.closure.problem import Problem
from f3eo.closure.snapshot import Replay
from f3eo.curvature import DoubleBackward, Engine, FiniteDifference
from f3eo.curvature.guard import Differs, NotRepeatable, no_second_derivative
from f3eo.curvature.guarded import PATIENCE
from f3eo.fisher.accuracy import LIMIT, rounding
from f3eo.fisher.differences import Coarse, differences
from f3eo.fisher.estimator import Estimator, Gradients, in_order, structure_gradient
from f3eo.fisher.ghost import Ghost, record
from f3eo.fisher.ghost.layouts import Known
from f3eo.fisher.watch import Watch

logger = logging.getLogger("f3eo")


class PerSample(Estimator):
    """Tr F̂ = (1/B) Σ_i ‖∇ℓ_i‖², exact; h = (1/B) Σ_i ‖∇ℓ_i‖^(p−2) H_i ∇ℓ_i; ∇L from the same pass.

    One forward pass and gradients in pre-activations give the norms and ∇L. Then h is, by engine:

    - `FiniteDifference()`, the default: (1/B) Σ_i (∇ℓ_i(θ + ε∇ℓ_i) − ∇ℓ_i(θ))/ε by a second pass in
      which every sample has weights of its own: 6 forward passes where a plain gradient costs 3.
      Piecewise linear operations stay on their piece, so ReLUs do no harm. The expected relative
      error of h is in `Gradients.error`: about 1e-3 in float32 at losses near 1, and √(u/ℓ) at
      small ones (`f3eo.fisher.accuracy`).
    - `DoubleBackward()`: exact to rounding, by one backward pass through both: 7 forward passes and
      the memory of two graphs. It takes the place of differences, which is logged once, where an
      error of 1 % is expected (float32 losses below 5e-3); in 16 bits; where gradients take more
      than `memory`; and where a second pass is not the first, or its differences are no products
      with a Hessian (`f3eo.fisher.guard`, at every step and at every check).

    Every operation that takes parameters is covered: by a rule (see `f3eo.extend.register_layer`)
    or by the exact torch.func fallback, which is logged. On the first batch, and from time to time
    (`f3eo.fisher.watch`), the result is checked against single samples.

    h is the gradient of a mean of norms, h = (1/p)∇ (1/B) Σ_i ‖∇ℓ_i‖^p. At p = 1 every sample moves
    as far as every other (SAM's direction for batches of one), at p = 2 those with large gradients,
    mislabelled ones among them, weigh most, and h = ½∇Tr F̂.

    Args:
        engine: how h is computed; default `FiniteDifference()`.
        power: p, in [1, 2]; default 1. What is reported as the trace is Tr F̂ for all.
        memory: bytes that per-sample gradients written out may take at a time; default 256 MiB.

    Raises:
        TypeError: an engine that is none of the two.
        ValueError: memory that is not positive, a power out of range.
    """

    additive = True

    def __init__(
        self, engine: Engine | None = None, *, power: float = 1.0, memory: int = 2**28
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
        self.engine = engine
        self.power = power
        self.memory = memory
        self.forget()

    @property
    def forwards(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.forwards`."""
        return 3.0 + self.engine.forwards if self._differs else 7.0

    def counters(self) -> Mapping[str, int]:
        """See `Estimator.counters`: how often differences did not serve."""
        return {"coarse": self._coarse, "alarms": self._alarms}

    def forget(self, counters: Mapping[str, Any] = MappingProxyType({})) -> None:
        """See `Estimator.forget`: layouts, h, and whether differences serve."""
        self._known: Known = {}
        self._watch = Watch()
        self._numpy = False  # whether the closure draws from numpy
        self._coarse, self._alarms = counters.get("coarse", 0), counters.get("alarms", 0)
        self._obstacle: str | None = None
        self._once_only = False  # the closure is known to have no second derivative
        self._told: set[str] = set()

    @property
    def _differs(self) -> bool:
        return (
            isinstance(self.engine, FiniteDifference)
            and self._obstacle is None
            and (self._coarse < PATIENCE or self._once_only)
            and self._alarms < PATIENCE
        )

    @property
    def kind(self) -> Any:
        """What a recording of `gradients` depends on."""
        return self._differs

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_known": {}, "_watch": Watch()}

    def capture(
        self, problem: Problem, *, differentiable: bool = True, check: bool = False
    ) -> Ghost:
        """The forward pass, with everything needed for per-sample norms.

        Args:
            problem: closure, batch and parameters.
            differentiable: whether the norms are to be differentiated.
            check: whether layouts are to be found anew.
        """
        recording = record(problem, differentiable=differentiable)
        return Ghost(problem, recording, self.memory, self._known, check=check)

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        check = not problem.repeatable and self._watch.due(problem)
        engine = self.engine
        if not (self._differs and isinstance(engine, FiniteDifference)):
            return self._exact(self.capture(problem, check=check), problem)
        replay = Replay(
            lambda: self.capture(problem, differentiable=False, check=check),
            problem,
            numpy=check or self._numpy,
        )
        ghost = replay()
        replay.generators |= ghost.recording.generators
        self._numpy = self._numpy or replay.drawn_from_numpy()
        try:
            first = ghost.keep()
            del ghost
            return differences(replay, first, problem, engine, self.power, coarse=self._once_only)
        except Coarse:
            self._coarse += 1
            self._tell(f"they are expected to err by more than {LIMIT:.0%}", logging.INFO)
            try:
                return self._again(replay, problem, check=check)
            except (RuntimeError, NotImplementedError) as error:
                if not no_second_derivative(error):
                    raise
            self._once_only = True
            self._tell_once_only()
            ghost = replay.once_more(lambda: self.capture(problem, differentiable=False))
            first = ghost.keep()
            del ghost
            return differences(replay, first, problem, engine, self.power, coarse=True)
        except NotRepeatable as reason:
            self._obstacle = cause = str(reason)
        except Differs as reason:
            # numpy may have begun to draw: it is heeded from now on.
            self._alarms, self._numpy = self._alarms + self._numpy, True
            cause, check = str(reason), True
        self._tell(cause)
        try:
            return self._again(replay, problem, check=check)
        except (RuntimeError, NotImplementedError) as error:
            if not no_second_derivative(error):
                raise
            raise RuntimeError(
                f"h cannot be had by finite differences ({cause}) nor by double backward "
                f"({error}): use operations that have second derivatives, or "
                f"estimator=Sign(FiniteDifference())"
            ) from error

    def _again(self, replay: Replay[Ghost], problem: Problem, *, check: bool) -> Gradients:
        """By double backward, in the surroundings of the first pass."""
        return self._exact(replay.once_more(lambda: self.capture(problem, check=check)), problem)

    def _tell_once_only(self) -> None:
        logger.warning(
            "h by finite differences though they are expected to err by more than %.0f %%: the "
            "closure has no second derivative",
            100 * LIMIT,
        )

    def heed(self, found: Gradients) -> None:
        """Take note of how exact a recorded measurement was.

        Args:
            found: what it gave.
        """
        if self._differs and found.error is not None and float(found.error) > LIMIT:
            self._coarse += 1

    def _tell(self, reason: str, level: int = logging.WARNING) -> None:
        if reason not in self._told:
            self._told.add(reason)
            logger.log(level, "h by double backward instead of finite differences: %s", reason)

    def trace(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`; by double backward, whatever the engine."""
        ghost = self.capture(problem)
        squared = ghost.norms(ghost.losses).squared
        refuse_once_differentiable([ghost.losses], [squared])
        shares = ghost.output.shares
        return shares.joined(ghost.losses), shares.average(squared)

    def _exact(self, ghost: Ghost, problem: Problem) -> Gradients:
        losses, shares, unit = ghost.losses, ghost.output.shares, ghost.recording.unit()
        # G_i = ω_i ∇ℓ_i, ω_i = 1/B without weights; their sum is ∇L.
        norms = ghost.norms(losses, shares.like(losses))
        trace = shares.trace(norms.squared)
        own, objective = shares.own(norms.squared), trace
        if self.power != 2:
            moves = own > 0  # where it is 0, so is its part of h, and a root has no derivative
            powers = torch.where(moves, own, 1) ** (self.power / 2) * moves
            objective = shares.average(powers) * (2 / self.power)
        refuse_once_differentiable([losses], [objective])
        lengths = own.detach().sqrt()
        return Gradients(
            loss=shares.mean(losses.detach()),
            weight=shares.total,
            gradient=in_order(norms.totals, problem.parameters),
            structure=structure_gradient(objective, problem),
            trace=trace.detach(),
            error=rounding(losses.detach(), lengths, shares, unit),
        )
