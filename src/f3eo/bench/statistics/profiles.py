"""Performance profiles: the share of tasks on which a method is nearly the fastest to the target.

Source: Dolan and Moré (2002), as in AlgoPerf (Dahl et al. 2023, arXiv 2306.07179, section 4.3).
"""

from collections.abc import Mapping, Sequence

import numpy as np

LIMIT = 4.0
"""AlgoPerf's largest τ."""

Ratios = Mapping[str, Sequence[float]]
"""By method and task: time to the target over that of the fastest method; inf if never reached."""


def time_to_target(times: Sequence[float | None]) -> float:
    """The median time over seeds; a run that never reaches the target (None) counts as inf."""
    return float(np.median([np.inf if time is None else time for time in times]))


def ratios(times: Mapping[str, Mapping[str, float]]) -> Ratios:
    """Each method's time over that of the fastest method.

    Args:
        times: by task and method; inf if the target is never reached. A method absent from a task
            counts as inf there; a task on which no method reaches the target is left out.
    """
    methods = dict.fromkeys(method for taken in times.values() for method in taken)
    reached = [
        taken for taken in times.values() if np.isfinite(min(taken.values(), default=np.inf))
    ]
    return {
        method: [_ratio(taken.get(method, np.inf), min(taken.values())) for taken in reached]
        for method in methods
    }


def share(ratios: Sequence[float], tau: float) -> float:
    """ρ(τ): the share of tasks on which a method takes at most τ times as long as the fastest."""
    return float(np.mean([ratio <= tau for ratio in ratios])) if len(ratios) else 0.0


def profile_score(ratios: Sequence[float], limit: float = LIMIT) -> float:
    """AlgoPerf's score 1/(r − 1) ∫₁ʳ ρ(τ) dτ, in [0, 1].

    ρ is a step function, so the integral is the mean over tasks of max(0, r − ratio).

    Args:
        ratios: of one method, one per task.
        limit: r; default LIMIT.
    """
    left = [max(0.0, limit - ratio) for ratio in ratios]
    return float(np.mean(left)) / (limit - 1) if left else 0.0


def _ratio(time: float, fastest: float) -> float:
    """Time over the fastest time; where that is 0 (no step needed), 1 for 0 and inf for others."""
    if fastest == 0:
        return 1.0 if time == 0 else np.inf
    return time / fastest
