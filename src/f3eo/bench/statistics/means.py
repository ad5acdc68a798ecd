"""Means of a quantity over finished runs, by task and method."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from f3eo.bench.run.metrics import Metric
from f3eo.bench.run.row import Row


def finished(
    rows: Sequence[Row], metric_on: Callable[[str], Metric], entry: str = "final"
) -> dict[tuple[str, str], list[float]]:
    """The values of a quantity over finished runs, by task and method.

    Args:
        rows: results.
        metric_on: task -> the metric read on it.
        entry: entry of the row that holds it, "final" or "best"; default "final".
    """
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        value = metric_on(row["task"]).read(row.get(entry))
        if row["status"] == "finished" and value is not None:
            values.setdefault((row["task"], row["method"]), []).append(value)
    return values


def means(rows: Sequence[Row], metric: Metric) -> dict[str, dict[str, float]]:
    """The mean of a quantity over finished runs, by task and method; tasks without it are absent.

    Args:
        rows: results.
        metric: the quantity.
    """
    found: dict[str, dict[str, float]] = {}
    for (task, method), values in finished(rows, lambda task: metric).items():
        found.setdefault(task, {})[method] = fmean(values)
    return found


def complete(table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tasks on which every method has an entry.

    Args:
        table: entries by task and method.
    """
    methods = {method for on_task in table.values() for method in on_task}
    return [task for task, on_task in table.items() if len(on_task) == len(methods)]
