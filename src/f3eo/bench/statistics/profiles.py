"""Performance profiles: on what share of tasks a method is nearly the fastest to the target.

Dolan and Moré (2002), as used by AlgoPerf: Dahl et al. 2023, arXiv 2306.07179, section 4.3.
"""

from collections.abc import Mapping, Sequence

import numpy as np

LIMIT = 4.0
"""AlgoPerf's largest τ."""

Ratios = Mapping[str, Sequence[float]]
"""By method, one per task: time to the target over that of the fastest method; inf for never."""


def time_to_target(times: Sequence[float | None]) -> float:
    """The median over seeds, None and lost runs being never (inf): finite if most got there."""
    return float(np.median([np.inf if time is None else time for time in times]))


def ratios(times: Mapping[str, Mapping[str, float]]) -> Ratios:
    """Each method's time over the fastest one's.

    Args:
        times: by task and method; inf for never. A method absent from a task never gets there; a
            task on which no method does says nothing and is left out.
    """
    methods = dict.fromkeys(method for found in times.values() for method in found)
    reached = [
        found for found in times.values() if np.isfinite(min(found.values(), default=np.inf))
    ]
    return {
        method: [_ratio(found.get(method, np.inf), min(found.values())) for found in reached]
        for method in methods
    }


def share(ratios: Sequence[float], tau: float) -> float:
    """ρ(τ): the share of tasks on which a method takes at most τ times as long as the fastest."""
    return float(np.mean([ratio <= tau for ratio in ratios])) if len(ratios) else 0.0


def integrated(ratios: Sequence[float], limit: float = LIMIT) -> float:
    """AlgoPerf's score, 1/(r − 1) ∫₁ʳ ρ(τ) dτ in [0, 1], with r = `limit`.

    ρ is a step function, so the integral is the mean of max(0, r − ratio) over tasks.
    """
    left = [max(0.0, limit - ratio) for ratio in ratios]
    return float(np.mean(left)) / (limit - 1) if left else 0.0


def _ratio(time: float, fastest: float) -> float:
    """Time over the fastest; a fastest of zero, reached before any step, is shared or lost."""
    if fastest == 0:
        return 1.0 if time == 0 else np.inf
    return time / fastest
