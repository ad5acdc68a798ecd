"""Rows of `f3eo cost`: the measured time and memory of one variant on one model."""

from collections.abc import Mapping, Sequence
from typing import Any

from f3eo.bench.models import Model
from f3eo.bench.price.memory import ratio
from f3eo.bench.price.ratios import quartiles, time_ratios
from f3eo.bench.price.timing import Timing
from f3eo.bench.price.variants import GRADIENT
from f3eo.bench.run.environment import environment
from f3eo.bench.run.place import PROCESSOR, Place

CostRow = dict[str, Any]
"""An entry of the JSON file; unknown values are null.

| name | value |
|---|---|
| `model`, `method` | names of the model and the variant |
| `batch` | samples in a batch |
| `precision` | "float32", or "bf16" under autocast |
| `time_ratio`, `time_ratio_low`, `time_ratio_high` | time of a step over that of a plain gradient step in the same round, median and quartiles over rounds; the clock is `timing.clock_for` |
| `rounds` | number of these rounds |
| `memory_ratio` | the same ratio of peak memory (`footprint`); null if the plain gradient's is below 8 MiB |
| `gradient_ms` | median time of a plain gradient step, in milliseconds |
| `memory_mib` | peak memory of the method's steps, in MiB |
| `error` | error message |
| `versions`, `machine` | see `f3eo.bench.run.environment` |
"""  # noqa: E501


def rows(
    model: Model,
    methods: Sequence[str],
    timing: Timing,
    memory: Mapping[str, int],
    memory_errors: Mapping[str, str],
    place: Place = PROCESSOR,
) -> list[CostRow]:
    """One row for each method.

    Args:
        model: the model that was measured on.
        methods: names of variants.
        timing: rounds and errors.
        memory: peak memory in bytes by method, where it is known.
        memory_errors: error messages of the memory measurements by method.
        place: device and precision; default the processor and float32.
    """
    gradient = GRADIENT.name
    plain = [seconds[gradient] for seconds in timing.rounds if gradient in seconds]
    return [
        {
            "model": model.name,
            "method": method,
            "batch": model.batch,
            "precision": place.precision,
            **_times(time_ratios(timing.rounds, method, gradient)),
            "memory_ratio": ratio(memory.get(method), memory.get(gradient)),
            "gradient_ms": 1000 * quartiles(plain).median if plain else None,
            "memory_mib": memory[method] / 2**20 if method in memory else None,
            "error": _error(method, timing.errors, memory_errors),
            **environment(place),
        }
        for method in methods
    ]


def _times(ratios: Sequence[float]) -> CostRow:
    names = ("time_ratio", "time_ratio_low", "time_ratio_high")
    values = quartiles(ratios) if ratios else (None, None, None)
    return dict(zip(names, values, strict=True)) | {"rounds": len(ratios)}


def _error(method: str, timing: Mapping[str, str], memory: Mapping[str, str]) -> str | None:
    if method in timing:
        return timing[method]
    if method in memory:
        return f"memory: {memory[method]}"
    if GRADIENT.name in timing:
        return "no ratio: the plain gradient failed"
    return None
