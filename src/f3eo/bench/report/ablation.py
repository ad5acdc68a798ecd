"""The table of an ablation: variants of a method below the method itself."""

from collections.abc import Mapping

from f3eo.bench.methods import label
from f3eo.bench.report.analysis import Analysis
from f3eo.bench.report.cells import Cell, Table, format_interval, format_score
from f3eo.bench.run.row import Row
from f3eo.bench.statistics.bootstrap import bootstrap
from f3eo.bench.statistics.goals import OURS
from f3eo.bench.statistics.paired import Paired, corrected, difference
from f3eo.bench.statistics.scores import Scores, scores


def ablation_table(analysis: Analysis) -> Table | None:
    """Mean scores of variants, marked where they differ from the method they vary.

    All lines are means over the seeds of the variants. Holm's correction is over the whole table.

    Returns:
        None if no variant ran.
    """
    variants = analysis.study.ablation
    tasks = [t for t in analysis.study.tasks if any(row["task"] == t for row in variants)]
    if not tasks:
        return None
    methods = sorted(dict.fromkeys(row["method"] for row in variants), key=lambda m: m != OURS)
    names = list(dict.fromkeys((row["method"], row["variant"]) for row in variants))
    seeds = {row["seed"] for row in variants}
    plain = [
        row for row in analysis.study.rows if row["method"] in methods and row["seed"] in seeds
    ]
    scored = {
        task: scores(
            [_relabelled(row) for row in [*plain, *variants] if row["task"] == task],
            analysis.study.metric(task),
        )
        for task in tasks
    }
    pairs = [
        difference(task, on_task, _line_name(*name), label(name[0]))
        for task, on_task in scored.items()
        for name in names
    ]
    tested = {(p.task, p.first): p for p in corrected([pair for pair in pairs if pair])}
    lines = [
        line
        for method in methods
        for line in (label(method), *(_line_name(*name) for name in names if name[0] == method))
    ]
    return Table(tasks, {line: _cells(line, scored, tested) for line in lines})


def _cells(
    line: str, scored: Mapping[str, Scores], tested: Mapping[tuple[str, str], Paired]
) -> list[Cell]:
    """One cell per task: mean score; below it the difference to the method, or the interval."""
    cells = []
    for task, on_task in scored.items():
        if line not in on_task.values:
            cells.append(Cell())
            continue
        spread = bootstrap(list(on_task.values[line].values()))
        pair = tested.get((task, line))
        lost = len(on_task.lost.get(line, ()))
        small = f"{pair.advantage.mean:+.3g}" if pair else format_interval(spread, on_task.metric)
        small += f"\n{lost} lost" if lost else ""
        best = line == next(iter(on_task.means))
        text = format_score(spread.mean, on_task.metric)
        cells.append(Cell(text, small, best, pair.relation if pair else None))
    return cells


def _relabelled(row: Row) -> Row:
    """The row with its line in the table as its method."""
    return row | {"method": _line_name(row["method"], row["variant"])}


def _line_name(method: str, variant: str) -> str:
    """`F3EO`, `F3EO, rule=direct` or, for the variant `f3eo over muon`, `F3EO over muon`."""
    if variant.startswith(f"{method} "):
        return label(method) + variant.removeprefix(method)
    return f"{label(method)}, {variant}" if variant else label(method)
