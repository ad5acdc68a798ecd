"""The report: one self-contained page, written from the rows of results.jsonl alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from f3eo.bench.execute import disk
from f3eo.bench.methods import METHODS
from f3eo.bench.report import page, plots
from f3eo.bench.report.ranking import EQUALS, ranking
from f3eo.bench.report.verdict import judge, summary
from f3eo.bench.run.metrics import ACCURACY, TEST_LOSS
from f3eo.bench.run.row import Row, equal
from f3eo.bench.run.run import Equal
from f3eo.bench.statistics.welch import LEVEL, Interval, curves, finals, interval
from f3eo.bench.tasks import TASKS

BAND = "Mean over seeds; the band is its 95 % interval."


def write_report(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write the page, replacing what was there at once.

    Args:
        rows: the rows of one comparison, one per key.
        path: the file to write.
        title: the name of the comparison.
    """
    disk.write(path, render(rows, title))


def render(rows: Sequence[Row], title: str) -> str:
    """The page as text, the same for the same rows in whatever order."""
    rows = sorted(rows, key=_place)
    return page.render(
        "comparison.html.j2",
        title=title,
        tasks=[
            _task(rows, name, kind)
            for name in distinct(rows, "task")
            for kind in EQUALS
            if any((row["task"], equal(row)) == (name, kind) for row in rows)
        ],
        rankings={
            name: ranking(rows, name)
            for name in distinct([row for row in rows if equal(row) == "time"], "task")
        },
        failures=[row for row in rows if row["status"] != "finished"],
        warned=[row for row in rows if row["warnings"]],
        total=len(rows),
        finished=sum(row["status"] == "finished" for row in rows),
        environments=environments([row for row in rows if row["status"] == "finished"]),
        commands=distinct(rows, "command"),
        level=LEVEL,
    )


def _place(row: Row) -> tuple[int, str, int, str, int]:
    """Tasks and methods in the order they are listed in, unknown ones last; then by seed."""
    task, method = row["task"], row["method"]
    listed = [*TASKS, task].index(task), [*METHODS, method].index(method)
    return listed[0], task, listed[1], method, row["seed"]


def _task(rows: Sequence[Row], name: str, kind: Equal) -> dict[str, Any]:
    """What the page says about one task at equal cost or time."""
    mine = [row for row in rows if (row["task"], equal(row)) == (name, kind)]
    frame = finals(mine)
    accuracy, loss = verdicts = [judge(frame, metric) for metric in (ACCURACY, TEST_LOSS)]
    methods = distinct(mine, "method")
    ranked = accuracy.order
    return {
        "name": name if kind == "cost" else f"{name}, equal time",
        "equal": kind,
        "description": TASKS[name].description if name in TASKS else "",
        "summaries": [summary(verdict) for verdict in verdicts] if ranked else ["No run finished."],
        "table": [
            _line(frame, mine, method)
            | {"best_accuracy": method in accuracy.leaders, "best_loss": method in loss.leaders}
            for method in ranked + [method for method in methods if method not in ranked]
        ],
        "verdicts": verdicts,
        "figures": _figures(frame, curves(mine), ranked) if ranked else [],
        "settings": [_setting(mine, name, method) for method in methods],
        "setting": mine[0]["config"],
    }


def _line(frame: pl.DataFrame, rows: Sequence[Row], method: str) -> dict[str, Any]:
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
        "steps": next((row["steps"] for row in mine if row["steps"]), None),
        "cost": next((row["gradient_equivalents"] for row in mine if row["steps"]), None),
        "price": next((row["config"].get("price") for row in mine if row["steps"]), None),
        "finished": len(part),
        "runs": len(mine),
    }


def _figures(frame: pl.DataFrame, lines: pl.DataFrame, methods: Sequence[str]) -> list[dict]:
    many = len(methods) > plots.FEW
    pale = " Grey without a name: the others." if many else ""
    return [
        {
            "title": "Where they ended",
            "caption": "Faint dots: seeds. Bold dot and bar: mean and its 95 % interval."
            + (" The worst quarter may leave the frame." if many else ""),
            "image": plots.finals_figure(frame, methods),
        },
        {
            "title": "How they got there",
            "caption": ("Mean over seeds." if many else BAND)
            + f" The first tenth of training may leave the frame.{pale}",
            "image": plots.curves_figure(lines, methods),
        },
        {
            "title": "Tr F over training",
            "caption": f"Exact empirical Fisher trace on the same training samples for all.{pale}",
            "image": plots.trace_figure(lines, methods),
        },
    ]


def _setting(rows: Sequence[Row], task: str, method: str) -> dict[str, Any]:
    """The hyper-parameters one method ran with, and how they were chosen."""
    options = next(row["config"]["options"] for row in rows if row["method"] == method)
    tuned = TASKS[task].options.get(method) if task in TASKS else None
    return {
        "method": method,
        "options": options,
        "chosen": _chosen(method, options, tuned),
    }


def _chosen(method: str, options: dict[str, Any], tuned: Any) -> str:
    if method in METHODS and options == METHODS[method].options(tuned or {}):
        return "the task's" if tuned else "defaults"
    return "set by hand"


def environments(rows: Sequence[Row]) -> list[dict[str, Any]]:
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


def distinct(rows: Sequence[Row], name: str) -> list[Any]:
    """The values of one entry, in order of appearance."""
    return list(dict.fromkeys(row.get(name) for row in rows if row.get(name) is not None))
