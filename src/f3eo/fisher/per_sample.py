"""The exact per-sample trace, (1/B) Σ_i ‖∇ℓ_i‖²."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from f3eo.evaluation import Problem, Replay, evaluate
from f3eo.fisher.estimator import Estimator, Gradients, chosen, structure_gradient
from f3eo.fisher.ghost import Ghost
from f3eo.fisher.ghost.gathered import Gathered
from f3eo.fisher.ghost.perturbed import Perturbed, SecondPass
from f3eo.fisher.ghost.weights import Shifted
from f3eo.products import DoubleBackward, Engine, FiniteDifference
from f3eo.products.finite_difference import above_rounding
from f3eo.tensors import filled, plus
from f3eo.weighted import Shares

logger = logging.getLogger("f3eo")


class PerSample(Estimator):
    """Tr F̂ = (1/B) Σ_i ‖∇ℓ_i‖², exact; h = (1/B) Σ_i H_i ∇ℓ_i; ∇L from the same pass.

    One forward pass and gradients in pre-activations give the norms and ∇L. Then h is, by engine:

    - `DoubleBackward()`: exact to rounding, by one backward pass through both: 7 forward passes
      where a plain gradient costs 3, and the memory of two graphs.
    - `FiniteDifference()`: (1/B) Σ_i (∇ℓ_i(θ + ε∇ℓ_i) − ∇ℓ_i(θ))/ε by a second pass in which every
      sample has weights of its own: 6 forward passes, in time nearer to them, and less memory.
      Piecewise linear operations stay on their piece, so ReLUs do no harm. Relative error of h
      about 1e-3 in float32 and 1e-7 in float64. Where it cannot be (16 bits, gradients beyond
      `memory`, parameters written into other tensors) double backward is used, and logged.

    Every operation that takes parameters is covered: by a rule (see `f3eo.register`) or by the
    exact torch.func fallback, which is logged. On the first batch of a new model the result is
    checked against two single samples.

    With `power` p other than 2 the structure gradient is that of another mean of the same norms,
    h = (1/p)∇ (1/B) Σ_i ‖∇ℓ_i‖^p = (1/B) Σ_i ‖∇ℓ_i‖^(p−2) H_i ∇ℓ_i. At p = 1 every sample moves as
    far as every other (SAM's direction for batches of one), at p = 2 those with large gradients,
    mislabelled ones among them, weigh most.

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
        self._layouts: dict[Any, Any] = {}
        self._unsuited: str | None = None

    @property
    def forwards(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Estimator.forwards`."""
        return 3.0 + self.engine.forwards if self._differs else 7.0

    @property
    def _differs(self) -> bool:
        return isinstance(self.engine, FiniteDifference) and self._unsuited is None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_layouts": {}}

    def capture(self, problem: Problem, *, twice: bool = True) -> Ghost:
        """The forward pass, with everything needed for per-sample norms.

        Args:
            problem: closure, batch and parameters.
            twice: whether the norms are to be differentiated.
        """
        return Ghost(problem, self.memory, self._layouts, twice=twice)

    def gradients(self, problem: Problem) -> Gradients:
        """See `Estimator.gradients`."""
        if not self._differs:
            return self._exact(self.capture(problem), problem)
        replay = Replay(lambda: self.capture(problem, twice=False), problem)
        ghost = replay()
        measured = ghost.gathered()
        if isinstance(measured, str):
            self._unsuited = measured
            logger.info("h by double backward instead of finite differences: %s", measured)
            return self._exact(replay.once_more(lambda: self.capture(problem)), problem)
        losses, shares = ghost.losses.detach(), ghost.output.shares
        del ghost
        return self._differences(replay, losses, shares, *measured, problem)

    def trace(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """See `Estimator.trace`; by double backward, whatever the engine."""
        ghost = self.capture(problem)
        squared = ghost.norms(ghost.losses).squared
        shares = ghost.output.shares
        return shares.joined(ghost.losses), shares.average(squared)

    def _exact(self, ghost: Ghost, problem: Problem) -> Gradients:
        losses, shares = ghost.losses, ghost.output.shares
        # G_i = ω_i ∇ℓ_i, ω_i = 1/B without weights; their sum is ∇L.
        norms = ghost.norms(losses, shares.like(losses))
        trace = shares.trace(norms.squared)
        objective = trace
        if self.power != 2:
            own = shares.own(norms.squared)
            moves = own > 0  # where it is 0, so is its part of h, and a root has no derivative
            powers = torch.where(moves, own, 1) ** (self.power / 2) * moves
            objective = shares.average(powers) * (2 / self.power)
        return Gradients(
            loss=shares.mean(losses.detach()),
            weight=shares.total,
            gradient=_in_order(norms.totals, problem.parameters),
            structure=structure_gradient(objective, problem),
            trace=trace.detach(),
        )

    def _differences(
        self,
        replay: Replay[Ghost],
        losses: Tensor,
        shares: Shares,
        found: Gathered,
        recorded: SecondPass,
        problem: Problem,
    ) -> Gradients:
        engine = self.engine
        assert isinstance(engine, FiniteDifference)
        parameters = chosen(problem)
        trace = shares.trace(found.squared)
        # A sample's gradient points where its own loss bends most, so the step is a small one.
        default = found.unit**0.5 / (8 if engine.central else 32)
        # ‖g_i‖^(p−2), by which sample i moves along its gradient, and the mean length of that.
        own, length = None, trace.sqrt()
        if self.power != 2:
            squared = shares.own(found.squared)
            own = torch.where(squared > 0, squared, torch.inf) ** (self.power / 2 - 1)
            length = shares.average(own.square() * squared).sqrt()
        size = engine.size(parameters, length, default)
        # Not finite where Tr F̂ overflows; h then is not either.
        share = 1 / (2 * size if engine.central else size)
        once = set() if engine.central else recorded.once

        def moved(step: Tensor) -> list[Tensor]:
            """∇L(θ + step ∇ℓ_i), every sample at its own weights, over ε."""
            step = shares.divided(step) if own is None else shares.divided(step) * own
            weights = {
                id(p): Shifted(p, found.terms[id(p)], step, once=id(p) in once)
                for p in parameters
                if id(p) in found.terms
            }
            mode = Perturbed(recorded, weights)
            moved = evaluate(problem, per_sample=True, twice=False, mode=mode).losses
            cotangent = shares.like(moved, share)
            gradient = torch.autograd.grad(moved, parameters, cotangent, allow_unused=True)
            return filled(gradient, parameters)

        high = replay.once_more(lambda: moved(size))
        if engine.central:
            structure = plus(high, replay.once_more(lambda: moved(-size)), -1.0)
        else:
            low = filled(_in_order(found.totals, parameters), parameters)
            structure = [
                torch.addcmul(h, g, share, value=-1) for h, g in zip(high, low, strict=True)
            ]
        return Gradients(
            loss=shares.mean(losses),
            weight=shares.total,
            gradient=_in_order(found.totals, problem.parameters),
            structure=above_rounding(structure, found.unit * trace.sqrt() * share),
            trace=trace,
        )


def _in_order(totals: Mapping[int, Tensor], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """The totals of these parameters, each in its dtype."""
    found = [totals.get(id(p)) for p in parameters]
    return [None if t is None else t.to(p.dtype) for t, p in zip(found, parameters, strict=True)]
