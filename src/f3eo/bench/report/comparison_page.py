"""The report of a comparison: one self-contained page, made from its rows alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from f3eo.bench.execute import disk
from f3eo.bench.methods import METHODS
from f3eo.bench.report import comparison_figures, page
from f3eo.bench.report.drawing import FEW, data_uri
from f3eo.bench.report.provenance import commands, environments
from f3eo.bench.report.standings import EQUALS, standings
from f3eo.bench.report.verdict import judge, summary
from f3eo.bench.run.metrics import ACCURACY, CALIBRATION, TEST_LOSS
from f3eo.bench.run.row import Row, equal
from f3eo.bench.run.run import Equal
from f3eo.bench.statistics.frames import curves, finals
from f3eo.bench.statistics.significance import LEVEL
from f3eo.bench.statistics.student import Interval, interval
from f3eo.bench.tasks import TASKS

BAND = "Mean over seeds; the band is its 95 % interval."


def write_report(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write the page, atomically.

    Args:
        rows: the rows of one comparison, one per key.
        path: the file to write.
        title: the name of the comparison.
    """
    disk.write(path, render(rows, title))


def render(rows: Sequence[Row], title: str) -> str:
    """The page as HTML; the order of the rows does not matter."""
    rows = sorted(rows, key=_position)
    return page.render(
        "comparison.html.j2",
        title=title,
        tasks=[
            _task(rows, name, kind)
            for name in _distinct(rows, "task")
            for kind in EQUALS
            if any((row["task"], equal(row)) == (name, kind) for row in rows)
        ],
        rankings={
            name: standings(rows, name)
            for name in _distinct([row for row in rows if equal(row) == "time"], "task")
        },
        failures=[row for row in rows if row["status"] != "finished"],
        warned=[row for row in rows if row["warnings"]],
        total=len(rows),
        finished=sum(row["status"] == "finished" for row in rows),
        environments=environments(rows),
        commands=commands(rows),
        level=LEVEL,
    )


def _position(row: Row) -> tuple[int, str, int, str, int]:
    """The sort key: task and method in the order of their registries, unknown last, then seed."""
    task, method = row["task"], row["method"]
    listed = [*TASKS, task].index(task), [*METHODS, method].index(method)
    return listed[0], task, listed[1], method, row["seed"]


def _task(rows: Sequence[Row], name: str, kind: Equal) -> dict[str, Any]:
    """The template's variables of one task, at equal cost or at equal time."""
    mine = [row for row in rows if (row["task"], equal(row)) == (name, kind)]
    frame = finals(mine)
    verdicts = [judge(frame, metric) for metric in (ACCURACY, TEST_LOSS, CALIBRATION)]
    accuracy, loss, _ = verdicts
    methods = _distinct(mine, "method")
    ranked = accuracy.order
    return {
        "name": name if kind == "cost" else f"{name}, equal time",
        "equal": kind,
        "description": TASKS[name].description if name in TASKS else "",
        "summaries": [summary(v) for v in verdicts if v.order] if ranked else ["No run finished."],
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
    """The line of one method in the table of results."""
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
    many = len(methods) > FEW
    pale = " Grey without a name: the others." if many else ""
    return [
        {
            "title": "Where they ended",
            "caption": "Faint dots: seeds. Bold dot and bar: mean and its 95 % interval."
            + (" The worst quarter may leave the frame." if many else ""),
            "image": data_uri(comparison_figures.finals_figure(frame, methods)),
        },
        {
            "title": "How they got there",
            "caption": ("Mean over seeds." if many else BAND)
            + f" The first tenth of training may leave the frame.{pale}",
            "image": data_uri(comparison_figures.curves_figure(lines, methods)),
        },
        {
            "title": "Tr F over training",
            "caption": f"Exact empirical Fisher trace on the same training samples for all.{pale}",
            "image": data_uri(comparison_figures.trace_figure(lines, methods)),
        },
    ]


def _setting(rows: Sequence[Row], task: str, method: str) -> dict[str, Any]:
    """The hyper-parameters of one method, and where they come from."""
    options = next(row["config"]["options"] for row in rows if row["method"] == method)
    tuned = TASKS[task].options.get(method) if task in TASKS else None
    return {"method": method, "options": options, "chosen": _origin(method, options, tuned)}


def _origin(method: str, options: dict[str, Any], tuned: Any) -> str:
    if method in METHODS and options == METHODS[method].options(tuned or {}):
        return "the task's" if tuned else "defaults"
    return "set by hand"


def _distinct(rows: Sequence[Row], name: str) -> list[Any]:
    """The values of one entry, in order of appearance."""
    return list(dict.fromkeys(row[name] for row in rows))
