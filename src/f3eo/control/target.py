"""What a controlled trace is held at: a number, a schedule, or a share of the base's own trace."""

from collections.abc import Callable
from math import isfinite

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


Target = float | Callable[[int], float] | Share
"""τ > 0, step (0, 1, …) → τ, or a share of the base's own trace."""


def checked(target: Target) -> Target:
    """The target itself.

    Raises:
        TypeError, ValueError: what is no target, with the allowed ones.
    """
    if isinstance(target, Share) or callable(target):
        return target
    if isinstance(target, bool) or not isinstance(target, (int, float)):
        raise TypeError(
            f"TraceTarget needs a number, a function step -> number or Share(0.5) as target, "
            f"received {target!r}"
        )
    if not (isfinite(target) and target > 0):
        raise ValueError(
            f"TraceTarget needs a finite target > 0, received {target}; for a share of the trace "
            f"that the base has by itself use Share(0.5)"
        )
    return target


def value_at(target: Target, step: int, own: float) -> float:
    """τ of one step, in the unit of the trace.

    Args:
        target: see `Target`.
        step: from 0.
        own: T, the base's own trace; nan where it is not known.

    Returns:
        τ; nan where it is not known.

    Raises:
        ValueError: a schedule that gives no finite number above 0.
    """
    if isinstance(target, Share):
        return target.share * own
    if not callable(target):
        return float(target)
    found = float(target(step))
    if not (isfinite(found) and found > 0):
        raise ValueError(
            f"the target of TraceTarget must give finite numbers > 0, gave at step {step}: {found}"
        )
    return found
