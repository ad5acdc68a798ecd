"""The tables of a study: methods down, tasks across."""

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Any

from f3eo.bench.report.analysis import Analysis, price, time
from f3eo.bench.report.cells import (
    Cell,
    Table,
    format_interval,
    format_option,
    format_p,
    format_score,
)
from f3eo.bench.report.page import number
from f3eo.bench.run.metrics import Metric
from f3eo.bench.run.row import Row
from f3eo.bench.statistics.bootstrap import bootstrap
from f3eo.bench.statistics.goals import OURS
from f3eo.bench.statistics.means import finished


def score_table(analysis: Analysis) -> Table:
    """Mean score and its interval of every method, marked where it differs from OURS."""

    def cell(task: str, method: str) -> Cell:
        scored = analysis.tasks[task]
        lost = len(scored.lost.get(method, ()))
        if method not in scored.values:
            return Cell(small=f"{lost} lost" if lost else "")
        spread = bootstrap(list(scored.values[method].values()))
        best = method == next(iter(scored.means))
        small = format_interval(spread, scored.metric) + (f"\n{lost} lost" if lost else "")
        mark = analysis.against_ours(task, method)
        return Cell(format_score(spread.mean, scored.metric), small, best, mark)

    return _table(analysis, cell)


def metric_table(
    analysis: Analysis,
    metric_on: Callable[[str], Metric],
    entry: str = "final",
    judged: bool = True,
) -> Table | None:
    """Means of a quantity over finished runs, with intervals.

    Args:
        analysis: the statistics of the study.
        metric_on: task -> the metric shown for it.
        entry: entry of the row that holds it, "final" or "best"; default "final".
        judged: whether the best mean is marked; default True.

    Returns:
        None if no row holds the metric.
    """
    values = finished(analysis.study.rows, metric_on, entry)
    if not values:
        return None

    def cell(task: str, method: str) -> Cell:
        if (task, method) not in values:
            return Cell()
        metric, spread = metric_on(task), bootstrap(values[task, method])
        means = {m: fmean(runs) for (other, m), runs in values.items() if other == task}
        best = method == (max if metric.larger_is_better else min)(means, key=means.__getitem__)
        return Cell(number(spread.mean), format_interval(spread, None), judged and best)

    return _table(analysis, cell)


def target_table(analysis: Analysis, seconds: Callable[[str, float], float]) -> Table:
    """Median time and steps to the target, and the number of seeds that reach it.

    Args:
        analysis: the statistics of the study.
        seconds: (task, nominal time in plain gradient steps) -> the time shown.
    """

    def cell(task: str, method: str) -> Cell:
        rows = [row for row in analysis.on(task) if row["method"] == method]
        if not rows:
            return Cell()
        steps = sorted(row["target"]["step"] for row in rows if time(row) is not None)
        median = analysis.times[task][method]
        reached = f"{len(steps)} of {len(rows)}"
        if not math.isfinite(median):
            return Cell("never" if not steps else "rarely", reached)
        best = median == min(analysis.times[task].values())
        middle = f"{steps[len(steps) // 2]:,} steps"
        return Cell(number(seconds(task, median)), f"{middle}\n{reached}", best)

    return _table(analysis, cell)


def cost_table(analysis: Analysis) -> Table:
    """The price of a step; below it its counted plain gradients and the number of steps."""

    def cell(task: str, method: str) -> Cell:
        rows = [row for row in analysis.on(task) if row["method"] == method and row["steps"]]
        if not rows:
            return Cell()
        count = rows[0]["gradient_equivalents"]
        small = f"{number(count)} gradients\n" if count else ""
        return Cell(f"{price(rows[0]):.2f}", f"{small}{rows[0]['steps']:,} steps")

    return _table(analysis, cell)


def matrix(analysis: Analysis) -> Table:
    """The number of tasks on which the line's method is significantly better than the column's."""
    methods = analysis.methods
    lines = {
        first: [
            Cell("") if first == second else Cell(str(analysis.wins(first, second)))
            for second in methods
        ]
        for first in methods
    }
    return Table(methods, lines)


def difference_table(analysis: Analysis) -> Table:
    """By how much OURS is better than each rival, with interval and corrected p."""

    def cell(task: str, method: str) -> Cell:
        pair = analysis.ours.get((task, OURS, method))
        if pair is None:
            return Cell()
        mean, low, high, _ = pair.advantage
        p = "" if math.isnan(pair.p) else f"\np {format_p(pair.p)}"
        mark = pair.relation
        return Cell(f"{mean:+.3g}", f"{low:+.2g} … {high:+.2g}{p}", mark == "better", mark)

    table = _table(analysis, cell)
    return table._replace(lines={m: cells for m, cells in table.lines.items() if m != OURS})


def options_table(analysis: Analysis) -> Table:
    """The chosen hyper-parameters, without those that are equal on every task."""
    options: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in analysis.study.rows:
        options.setdefault((row["task"], row["method"]), row["config"]["options"])

    def cell(task: str, method: str) -> Cell:
        everywhere = [chosen for (_, m), chosen in options.items() if m == method]
        here = options.get((task, method))
        if here is None:
            return Cell()
        differ = [n for n in here if any(chosen.get(n) != here[n] for chosen in everywhere)]
        shown = ", ".join(f"{name} {format_option(here[name])}" for name in differ)
        return Cell(shown or "as always")

    return _table(analysis, cell)


def common_options(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """The hyper-parameters that are equal on every task, by method."""
    common: dict[str, dict[str, Any]] = {}
    for row in rows:
        options = row["config"]["options"]
        known = common.setdefault(row["method"], dict(options))
        common[row["method"]] = {n: v for n, v in known.items() if n in options and options[n] == v}
    return common


def _table(analysis: Analysis, cell: Callable[[str, str], Cell]) -> Table:
    tasks = analysis.study.tasks
    return Table(tasks, {m: [cell(task, m) for task in tasks] for m in analysis.methods})
