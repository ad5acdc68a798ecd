"""What was measured of one method on one model, as one row."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from f3eo.bench.models import Model
from f3eo.bench.price.memory import ratio
from f3eo.bench.price.methods import GRADIENT
from f3eo.bench.price.timing import Timing
from f3eo.bench.run.environment import machine, versions

Row = dict[str, Any]
"""A line of the JSON file; what is not known is null.

`model`, `method`: names; `batch`: samples; `time_ratio`, `time_ratio_low`, `time_ratio_high`: time
of a step (see `timing.clock_for`) over that of a plain gradient step in the same round, median and
quartiles over rounds; `rounds`: how many; `memory_ratio`: the same of peak memory (see
`footprint`), null where the plain gradient's is below 8 MiB; `gradient_ms`: median time of a plain
gradient step of the model in milliseconds; `memory_mib`: the method's own memory in MiB; `error`:
what went wrong; `versions`, `machine`.
"""


class Quartiles(NamedTuple):
    """A median and the quartiles around it, with linear interpolation between values."""

    median: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Of at least one value."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Quartiles(float(median), float(low), float(high))


def time_ratios(rounds: Sequence[Mapping[str, float]], method: str) -> list[float]:
    """Time of the method over that of the plain gradient, for each round that has both."""
    return [
        seconds[method] / seconds[GRADIENT.name]
        for seconds in rounds
        if method in seconds and GRADIENT.name in seconds
    ]


def rows(
    model: Model,
    methods: Sequence[str],
    timing: Timing,
    memory: Mapping[str, int],
    memory_errors: Mapping[str, str],
) -> list[Row]:
    """A row for each method.

    Args:
        model: what was measured on.
        methods: names.
        timing: rounds and errors.
        memory: bytes by method, as far as known.
        memory_errors: what went wrong there.
    """
    gradient = GRADIENT.name
    plain = [seconds[gradient] for seconds in timing.rounds if gradient in seconds]
    return [
        {
            "model": model.name,
            "method": method,
            "batch": model.batch,
            **_times(time_ratios(timing.rounds, method)),
            "memory_ratio": ratio(memory.get(method), memory.get(gradient)),
            "gradient_ms": 1000 * quartiles(plain).median if plain else None,
            "memory_mib": memory[method] / 2**20 if method in memory else None,
            "error": _error(method, timing.errors, memory_errors),
            "versions": versions(),
            "machine": machine() | {"threads": torch.get_num_threads()},  # it caches
        }
        for method in methods
    ]


def _times(ratios: Sequence[float]) -> Row:
    names = ("time_ratio", "time_ratio_low", "time_ratio_high")
    found = quartiles(ratios) if ratios else (None, None, None)
    return dict(zip(names, found, strict=True)) | {"rounds": len(ratios)}


def _error(method: str, timing: Mapping[str, str], memory: Mapping[str, str]) -> str | None:
    if method in timing:
        return timing[method]
    if method in memory:
        return f"memory: {memory[method]}"
    if GRADIENT.name in timing:
        return "nothing to compare with: the plain gradient failed"
    return None
