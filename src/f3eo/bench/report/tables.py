"""The tables of a study: methods down, tasks across, every cell ready to be shown."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from f3eo.bench.methods import label
from f3eo.bench.report.analysis import Analysis, price, time
from f3eo.bench.report.page import number
from f3eo.bench.run.metrics import Metric
from f3eo.bench.run.row import Row
from f3eo.bench.statistics.bootstrap import Range, bootstrap
from f3eo.bench.statistics.goals import OURS
from f3eo.bench.statistics.paired import Relation, corrected, difference
from f3eo.bench.statistics.scores import scores

NOTHING = "–"


class Cell(NamedTuple):
    """One cell.

    Attributes:
        text: what it says.
        small: what it says below, in one line or more.
        best: whether it is the best of its column.
        mark: what it is significantly, compared with what the table is about.
    """

    text: str = NOTHING
    small: str = ""
    best: bool = False
    mark: Relation | None = None


class Table(NamedTuple):
    """Cells under `columns`, by the name of their line: a method's, or free text."""

    columns: list[str]
    lines: dict[str, list[Cell]]


def score_table(analysis: Analysis) -> Table:
    """What every method scores on every task, marked where it differs from ours."""

    def cell(task: str, method: str) -> Cell:
        found = analysis.tasks[task]
        lost = len(found.lost.get(method, ()))
        if method not in found.values:
            return Cell(small=f"{lost} lost" if lost else "")
        spread = bootstrap(list(found.values[method].values()))
        best = method == next(iter(found.means))
        small = _between(spread, found.metric) + (f"\n{lost} lost" if lost else "")
        mark = analysis.against_ours(task, method)
        return Cell(_value(spread.mean, found.metric), small, best, mark)

    return _table(analysis, cell)


def metric_table(
    analysis: Analysis, chosen: Callable[[str], Metric], entry: str = "final", judged: bool = True
) -> Table | None:
    """Means of a quantity over the runs that finished; None if no row has it.

    Args:
        analysis: of the study.
        chosen: the metric by task.
        entry: of a row: "final" or "best".
        judged: whether the best is marked; default True.
    """
    values: dict[tuple[str, str], list[float]] = {}
    for row in analysis.study.rows:
        wanted = chosen(row["task"])
        value = (row.get(entry) or {}).get(wanted.column)
        if row["status"] == "finished" and value is not None and math.isfinite(value):
            values.setdefault((row["task"], row["method"]), []).append(value * wanted.factor)
    if not values:
        return None

    def cell(task: str, method: str) -> Cell:
        if (task, method) not in values:
            return Cell()
        wanted, spread = chosen(task), bootstrap(values[task, method])
        rivals = {m: fmean(found) for (other, m), found in values.items() if other == task}
        best = method == (max if wanted.larger_is_better else min)(rivals, key=rivals.__getitem__)
        return Cell(number(spread.mean), _between(spread, None), judged and best)

    return _table(analysis, cell)


def target_table(analysis: Analysis, seconds: Callable[[str, float], float]) -> Table:
    """Median time and steps to the target, and how many seeds reached it.

    Args:
        analysis: of the study.
        seconds: (task, nominal time) -> the time shown.
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
    """The price of a step in time, and its count in gradients and the steps below."""

    def cell(task: str, method: str) -> Cell:
        rows = [row for row in analysis.on(task) if row["method"] == method and row["steps"]]
        if not rows:
            return Cell()
        count = rows[0]["gradient_equivalents"]
        small = f"{number(count)} gradients\n" if count else ""
        return Cell(f"{price(rows[0]):.2f}", f"{small}{rows[0]['steps']:,} steps")

    return _table(analysis, cell)


def matrix(analysis: Analysis) -> Table:
    """On how many tasks the method of the line is significantly better than that of the column."""
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
    """How much better ours is than each rival, with interval and corrected p."""

    def cell(task: str, method: str) -> Cell:
        pair = analysis.ours.get((task, OURS, method))
        if pair is None:
            return Cell()
        mean, low, high, _ = pair.advantage
        p = "" if math.isnan(pair.p) else f"\np {_p(pair.p)}"
        mark = pair.relation
        return Cell(f"{mean:+.3g}", f"{low:+.2g} … {high:+.2g}{p}", mark == "better", mark)

    table = _table(analysis, cell)
    return table._replace(lines={m: cells for m, cells in table.lines.items() if m != OURS})


def ablation_table(analysis: Analysis) -> Table | None:
    """Variants of a method below the method itself, marked where they differ from it."""
    variants = analysis.study.ablation
    tasks = [t for t in analysis.study.tasks if any(row["task"] == t for row in variants)]
    if not tasks:
        return None
    methods = sorted(dict.fromkeys(row["method"] for row in variants), key=lambda m: m != OURS)
    names = list(dict.fromkeys((row["method"], row["variant"]) for row in variants))
    plain = [row for row in analysis.study.rows if row["method"] in methods]
    found = {
        task: scores(
            [
                row | {"method": _variant(row["method"], row["variant"])}
                for row in [*plain, *variants]
                if row["task"] == task
            ],
            analysis.study.metric(task),
        )
        for task in tasks
    }
    pairs = [
        difference(task, given, _variant(*name), label(name[0]))
        for task, given in found.items()
        for name in names
    ]
    tested = {(p.task, p.first): p for p in corrected([pair for pair in pairs if pair])}
    lines: dict[str, list[Cell]] = {}
    for method in methods:
        for line in [label(method), *(_variant(*name) for name in names if name[0] == method)]:
            lines[line] = []
            for task, given in found.items():
                if line not in given.values:
                    lines[line].append(Cell())
                    continue
                spread, pair = (
                    bootstrap(list(given.values[line].values())),
                    tested.get((task, line)),
                )
                lost = len(given.lost.get(line, ()))
                small = f"{pair.advantage.mean:+.3g}" if pair else _between(spread, given.metric)
                small += f"\n{lost} lost" if lost else ""
                best = line == next(iter(given.means))
                text = _value(spread.mean, given.metric)
                lines[line].append(Cell(text, small, best, pair.relation if pair else None))
    return Table(tasks, lines)


def options_table(analysis: Analysis) -> Table:
    """The hyper-parameters that were chosen, those that are the same on every task left out."""
    options: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in analysis.study.rows:
        options.setdefault((row["task"], row["method"]), row["config"]["options"])

    def cell(task: str, method: str) -> Cell:
        mine = [found for (_, m), found in options.items() if m == method]
        given = options.get((task, method))
        if given is None:
            return Cell()
        differ = [n for n in given if any(o.get(n) != given[n] for o in mine)]
        return Cell(", ".join(f"{name} {_short(given[name])}" for name in differ) or "as always")

    return _table(analysis, cell)


def common_options(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """By method, the hyper-parameters that are the same on every task."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        options = row["config"]["options"]
        mine = found.setdefault(row["method"], dict(options))
        found[row["method"]] = {n: v for n, v in mine.items() if n in options and options[n] == v}
    return found


def markdown(table: Table, first: str = "", names: Sequence[str] | None = None) -> list[str]:
    """The lines of a table in Markdown, without what is small."""
    head = [first, *(names or table.columns)]
    body = [
        [label(name), *((f"**{c.text}**" if c.best else c.text) + _sign(c.mark) for c in cells)]
        for name, cells in table.lines.items()
    ]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _table(analysis: Analysis, cell: Callable[[str, str], Cell]) -> Table:
    tasks = analysis.study.tasks
    return Table(tasks, {m: [cell(task, m) for task in tasks] for m in analysis.methods})


def _variant(method: str, variant: str) -> str:
    """`F3EO`, `F3EO, rule=direct` or, of `f3eo over muon`, `F3EO over muon`."""
    if variant.startswith(f"{method} "):
        return label(method) + variant.removeprefix(method)
    return f"{label(method)}, {variant}" if variant else label(method)


def _sign(mark: Relation | None) -> str:
    return {"better": " ▲", "worse": " ▼"}.get(mark or "", "")


def _value(value: float, of: Metric) -> str:
    return f"{value:.2f}" if of.larger_is_better else f"{value:.4f}"


def _between(spread: Range, of: Metric | None) -> str:
    if math.isnan(spread.low):
        return "one run"
    if of is None:
        digits = 3 if abs(spread.high) >= 0.1 else 2
        return f"{number(spread.low, digits)}–{number(spread.high, digits)}"
    digits = 1 if of.larger_is_better else 3
    return f"{spread.low:.{digits}f}–{spread.high:.{digits}f}"


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
