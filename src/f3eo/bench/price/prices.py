"""Prices of runs: the measured time of a step, in plain gradient steps, kept in prices.json."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from f3eo.bench.execute import disk
from f3eo.bench.price.step_times import step_times
from f3eo.bench.price.variants import RATE
from f3eo.bench.run.names import without_later
from f3eo.bench.run.place import Place
from f3eo.bench.run.run import Run

FREE = frozenset(
    (
        *("lr", "weight_decay", "momentum", "rho", "alpha", "gamma", "strength", "ratio", "value"),
        *("ess", "hess_init", "num_data", "p", "limit"),
        *("horizon", "weight_penalty", "activation_penalty"),
    )
)
"""Options that do not change the time of a step."""
OFF_AT_ZERO = ("ratio", "value")
"""Options in FREE that do change it where they are 0: F3EO then measures nothing."""

CURE = "move it away: prices are then measured anew, and runs at other prices repeated"
"""The cure in the message about a damaged file."""


def step_kind(run: Run) -> str:
    """What determines the price of a run: task, method, its options that are not FREE, place."""
    options = [f"{name}={value}" for name, value in _priced_options(run).items()]
    return " ".join([run.task, run.method, *options]) + run.place.suffix


def _priced_options(run: Run) -> dict[str, Any]:
    off = {name for name in OFF_AT_ZERO if run.options.get(name) == 0}
    options = sorted(without_later(run.method, run.options).items())
    return {name: value for name, value in options if name not in FREE or name in off}


def prices(
    runs: Sequence[Run], path: Path, tell: Callable[[str], object] = lambda text: None
) -> dict[str, float]:
    """The price of each kind of step, measured unless the file has it.

    New kinds are timed together with one kind of the same method that has a price, and rescaled to
    that price, so a study resumed on another machine keeps its step counts. All kinds are timed at
    learning rate RATE: no step diverges, and all see the same parameters.

    Args:
        runs: one of each kind at least; those of a task and place are timed together.
        path: file that keeps the prices and, as `plain_ms` by task (and place, if it is another
            than the processor in float32), the milliseconds of a plain gradient step.
        tell: called with a line about what is being timed; default nothing.

    Returns:
        By `step_kind`, the time of a step over that of a plain gradient step; 1 for a method that
        cannot be timed, whose runs then fail with the reason.

    Raises:
        Damaged: the file holds something else.
    """
    stored = {"plain_ms": {}, "prices": {}, **disk.read_json(path, CURE, check_prices)}
    kinds = {step_kind(run): run for run in runs}
    for task, place in dict.fromkeys((run.task, run.place) for run in runs):
        new = {
            kind: run
            for kind, run in kinds.items()
            if (run.task, run.place) == (task, place) and kind not in stored["prices"]
        }
        if not new:
            continue
        tell(f"timing {len(new)} kinds of steps on {task}{place.suffix} …")
        anchors = _anchors(task, place, new.values(), kinds, stored["prices"])
        timed = {**new, **{kind: kinds[kind] for kind in anchors.values()}}
        methods = {kind: (run.method, {**run.options, "lr": RATE}) for kind, run in timed.items()}
        times = step_times(task, methods, place=place)
        stored["plain_ms"].setdefault(task + place.suffix, round(1e3 * times.plain.median, 4))
        for kind, run in new.items():
            ratio = times.ratios.get(kind)
            if ratio is None:
                tell(f"{kind} cannot be timed, its price is set to 1")
            anchor = anchors.get(run.method, "")
            again = times.ratios.get(anchor)
            scale = stored["prices"][anchor]["price"] / again.median if again else 1.0
            stored["prices"][kind] = {
                "task": task,
                "method": run.method,
                "options": _priced_options(run),
                "price": 1.0 if ratio is None else round(scale * ratio.median, 3),
                "quartiles": ratio and [round(scale * q, 3) for q in (ratio.low, ratio.high)],
            } | ({"scale": round(scale, 3)} if again else {})
        disk.write(path, json.dumps(stored, indent=1) + "\n")
    return {kind: stored["prices"][kind]["price"] for kind in kinds}


def check_prices(content: Mapping[str, Any]) -> None:
    """Refuse content that is not that of a prices.json.

    Raises:
        LookupError, TypeError, AttributeError, ValueError: an entry is missing or not positive.
    """
    numbers = [entry["price"] for entry in content.get("prices", {}).values()]
    for number in [*numbers, *content.get("plain_ms", {}).values()]:
        if not number > 0:
            raise ValueError(f"a time must be positive, got {number}")


def _anchors(
    task: str,
    place: Place,
    new: Iterable[Run],
    kinds: Mapping[str, Run],
    stored: Mapping[str, Any],
) -> dict[str, str]:
    """By method of the new runs, its first kind on the task and place that was timed before."""
    methods = {run.method for run in new}
    anchors: dict[str, str] = {}
    for kind, run in kinds.items():
        here = (run.task, run.place) == (task, place) and run.method in methods
        if here and stored.get(kind, {}).get("quartiles"):
            anchors.setdefault(run.method, kind)
    return anchors
