"""What a controlled trace is held at: a number, a schedule, or a share of the base's own trace."""

from collections.abc import Callable
from math import exp, expm1, inf, isfinite

from f3eo.shown import Shown
from f3eo.strength.strength import number


class Share(Shown):
    """τ = share · T, with T the trace that the run has by itself at an early step.

    The first `after` measured steps have λ = 0. T is the running mean of the trace at the last of
    them, and stays.

    Args:
        share: in (0, 1].
        after: measured steps before T is taken, at least 1; default 100. With `every=5` that are
            five times as many steps.

    Raises:
        TypeError, ValueError: no numbers, or outside these ranges.
    """

    def __init__(self, share: float, after: int = 100) -> None:
        if not 0 < number(self, "share", share) <= 1:
            raise ValueError(f"Share needs a share in (0, 1], received {share}")
        if number(self, "after", after, int) < 1:
            raise ValueError(f"Share needs after >= 1 measured steps, received {after}")
        self.share = share
        self.after = after


class Complexity(Shown):
    """τ at which the free energy's complexity is K nats, under the best noise (`FreeEnergy`).

    With α* = P/(N T + P/s²) and r = α*/s² the divergence of N(θ, α* D²) from N(0, s² D²) is

        KL = ½ P (r − 1 − log r) + const,    the constant ½‖θ/D‖²/s² that θ itself costs,

    and grows with T: KL = K at T = (P/N) (1/r − 1)/s². P is the number of structured parameters
    for which D is not 0 by choice.

    Args:
        nats: K of all N samples, above 0, without the constant.
        samples: N, the number of training samples, at least 1.
        variance: s² of the prior, in units of D²; default 1.

    Raises:
        TypeError, ValueError: no numbers, or outside these ranges.

    Source: f3eo-theory, free energy.
    """

    def __init__(self, nats: float, samples: int, variance: float = 1.0) -> None:
        for name, given in (("nats", nats), ("variance", variance)):
            if not 0 < number(self, name, given) < inf:
                raise ValueError(f"Complexity needs finite {name} > 0, received {given}")
        if number(self, "samples", samples, int) < 1:
            raise ValueError(
                f"Complexity needs the number of training samples, at least 1, received {samples}"
            )
        self.nats = nats
        self.samples = samples
        self.variance = variance

    def trace(self, parameters: int) -> float:
        """T at which the complexity of P parameters is K.

        Args:
            parameters: P, at least 1.
        """
        goal = 2 * self.nats / parameters
        u = goal + 1  # −log r; e^(−u) − 1 + u is convex, so Newton comes from above
        for _ in range(100):
            u -= (exp(-u) - 1 + u - goal) / -expm1(-u)
        return parameters / self.samples * expm1(min(u, 600.0)) / self.variance


Target = float | Callable[[int], float] | Share | Complexity
"""τ > 0, step (0, 1, …) → τ, a share of the base's own trace, or nats of complexity."""


def checked(target: Target) -> Target:
    """The target itself.

    Raises:
        TypeError, ValueError: what is no target, with the allowed ones.
    """
    if isinstance(target, (Share, Complexity)) or callable(target):
        return target
    if isinstance(target, bool) or not isinstance(target, (int, float)):
        raise TypeError(
            f"TraceTarget needs a number, a function step -> number, Share(0.5) or "
            f"Complexity(nats, samples) as target, received {target!r}"
        )
    if not (isfinite(target) and target > 0):
        raise ValueError(
            f"TraceTarget needs a finite target > 0, received {target}; for a share of the trace "
            f"that the base has by itself use Share(0.5)"
        )
    return target


def value_at(target: Target, step: int, own: float, parameters: int) -> float:
    """τ of one step, in the unit of the trace.

    Args:
        target: see `Target`.
        step: from 0.
        own: T, the base's own trace; nan where it is not known.
        parameters: P, that the trace is over.

    Returns:
        τ; nan where it is not known.

    Raises:
        ValueError: a schedule that gives no finite number above 0.
    """
    if isinstance(target, Share):
        return target.share * own
    if isinstance(target, Complexity):
        return target.trace(parameters)
    if not callable(target):
        return float(target)
    found = float(target(step))
    if not (isfinite(found) and found > 0):
        raise ValueError(
            f"the target of TraceTarget must give finite numbers > 0, gave at step {step}: {found}"
        )
    return found
