"""The report: one self-contained page, written from the rows of results.jsonl alone."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from f3eo.bench import plots
from f3eo.bench.row import Row
from f3eo.bench.statistics import (
    LEVEL,
    Difference,
    Interval,
    curves,
    differences,
    finals,
    interval,
    relations,
)
from f3eo.bench.tasks import TASKS

JUDGED = ((plots.ACCURACY, True), (plots.TEST_LOSS, False))
"""The metrics methods are compared by, and whether larger is better."""


def write_report(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write the page, replacing what was there at once.

    Args:
        rows: the rows of one comparison, one per key.
        path: the file to write.
        title: the name of the comparison.
    """
    draft = path.with_suffix(".tmp")
    draft.write_text(render(rows, title), encoding="utf-8")
    os.replace(draft, path)


def render(rows: Sequence[Row], title: str) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("f3eo.bench", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["fixed"] = lambda value, digits: (
        f"{value:.{digits}f}" if math.isfinite(value) else "–"
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        tasks=[_task(rows, name) for name in _distinct(rows, "task")],
        failures=[row for row in rows if row["status"] != "finished"],
        total=len(rows),
        finished=sum(row["status"] == "finished" for row in rows),
        environments=_environments([row for row in rows if row["status"] == "finished"]),
        commands=_distinct(rows, "command"),
        level=LEVEL,
        colour=plots.colour,
        label=plots.label,
    )


def number(value: float, digits: int = 3) -> str:
    """A number in `digits` significant digits, without an exponent where it can be read so."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
        return f"{value:.{decimals}f}"
    return f"{value:.{digits - 1}e}"


def _task(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """What the page says about one task."""
    mine = [row for row in rows if row["task"] == name]
    frame, lines = finals(mine), curves(mine)
    methods = _distinct(mine, "method")
    ranked = _ranked(frame)
    verdicts = [_verdict(frame, metric, larger_is_better) for metric, larger_is_better in JUDGED]
    best = [
        {method for method in ranked if method not in verdict["behind_best"]}
        for verdict in verdicts
    ]
    return {
        "name": name,
        "description": TASKS[name].description if name in TASKS else "",
        "summary": _summary(verdicts[0], ranked),
        "table": [
            _line(frame, mine, method, accuracy=method in best[0], loss=method in best[1])
            for method in ranked + [method for method in methods if method not in ranked]
        ],
        "verdicts": verdicts,
        "figures": _figures(frame, lines, ranked) if ranked else [],
        "settings": [_setting(mine, name, method) for method in methods],
        "setting": next(row["config"] for row in mine),
    }


def _ranked(frame: pl.DataFrame) -> list[str]:
    """The methods with a finished run, the most accurate first."""
    if frame.is_empty():
        return []
    mean = frame.group_by("method").agg(pl.col("test_accuracy").mean())
    return mean.sort("test_accuracy", "method", descending=[True, False])["method"].to_list()


def _verdict(frame: pl.DataFrame, metric: plots.Metric, larger_is_better: bool) -> dict[str, Any]:
    """Who is better than whom by one metric, and who cannot be told apart."""
    samples = (
        {}
        if frame.is_empty()
        else {
            str(method): (part[metric.column] * metric.factor).to_list()
            for (method,), part in frame.group_by("method", maintain_order=True)
        }
    )
    order = sorted(samples, key=lambda m: interval(samples[m]).mean, reverse=larger_is_better)
    pairs = differences({method: samples[method] for method in order})
    found = {method: relations(pairs, method, larger_is_better) for method in order}
    return {
        "metric": metric.name,
        "order": order,
        "relations": found,
        "single": [method for method in order if len(samples[method]) < 2],
        "matrix": {(pair.first, pair.second): pair for pair in pairs}
        | {(pair.second, pair.first): _turned(pair) for pair in pairs},
        "behind_best": found[order[0]]["better"] if order else [],
    }


def _turned(pair: Difference) -> Difference:
    return Difference(pair.second, pair.first, -pair.mean, -pair.high, -pair.low, pair.p)


def _summary(verdict: dict[str, Any], ranked: Sequence[str]) -> str:
    """One plain sentence on the task's accuracies."""
    if not ranked:
        return "No run finished."
    first = ranked[0]
    lead = f"{plots.label(first)} has the highest mean test accuracy"
    if len(ranked) == 1:
        return f"{lead}; nothing to compare it with."
    if verdict["single"]:
        return f"{lead}; with a single seed nothing can be said about chance."
    found = verdict["relations"][first]
    parts = []
    if found["better"]:
        parts.append(f"it is better than {_names(found['better'])}")
    if found["level"]:
        parts.append(f"it is not distinguishable from {_names(found['level'])}")
    return f"{lead}: {', and '.join(parts)}."


def _names(methods: Sequence[str]) -> str:
    labels = [plots.label(method) for method in methods]
    return " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)


def _line(
    frame: pl.DataFrame, rows: Sequence[Row], method: str, accuracy: bool, loss: bool
) -> dict[str, Any]:
    """One method's line of the table of results."""
    mine = [row for row in rows if row["method"] == method]
    part = frame if frame.is_empty() else frame.filter(pl.col("method") == method)

    def cell(column: str, factor: float = 1.0) -> Interval | None:
        return interval((part[column] * factor).to_list()) if len(part) else None

    return {
        "method": method,
        "accuracy": cell("test_accuracy", 100),
        "loss": cell("test_loss"),
        "trace": cell("fisher_trace"),
        "seconds": cell("seconds"),
        "best_accuracy": accuracy,
        "best_loss": loss,
        "steps": next((row["steps"] for row in mine if row["steps"]), None),
        "cost": next((row["gradient_equivalents"] for row in mine if row["steps"]), None),
        "finished": len(part),
        "runs": len(mine),
    }


def _figures(frame: pl.DataFrame, lines: pl.DataFrame, methods: Sequence[str]) -> list[dict]:
    return [
        {
            "title": "Where they ended",
            "caption": "Faint dots: seeds. Bold dot and bar: mean and its 95 % interval.",
            "image": plots.finals_figure(frame, methods),
        },
        {
            "title": "How they got there",
            "caption": "Mean over seeds; the band is its 95 % interval. "
            "The first tenth of training may leave the frame.",
            "image": plots.curves_figure(lines, methods),
        },
        {
            "title": "Tr F over training",
            "caption": "Exact empirical Fisher trace on the same training samples for all.",
            "image": plots.trace_figure(lines, methods),
        },
    ]


def _setting(rows: Sequence[Row], task: str, method: str) -> dict[str, Any]:
    """The hyper-parameters one method ran with, and whether they are the tuned ones."""
    options = next(row["config"]["options"] for row in rows if row["method"] == method)
    tuned = TASKS[task].options.get(method) if task in TASKS else None
    return {
        "method": method,
        "options": options,
        "tuned": tuned is not None and all(options.get(k) == v for k, v in tuned.items()),
    }


def _environments(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each combination of versions and machine, with the number of rows it gave."""
    found: list[dict[str, Any]] = []
    for row in rows:
        for known in found:
            if (known["versions"], known["machine"]) == (row["versions"], row["machine"]):
                known["rows"] += 1
                break
        else:
            found.append({"versions": row["versions"], "machine": row["machine"], "rows": 1})
    return found


def _distinct(rows: Sequence[Row], name: str) -> list[Any]:
    """The values of one entry, in order of appearance."""
    return list(dict.fromkeys(row.get(name) for row in rows if row.get(name) is not None))
