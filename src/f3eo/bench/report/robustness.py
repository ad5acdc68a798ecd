"""The table of robustness: what disturbed inputs and weights cost, averaged over tasks."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from f3eo.bench.report.analysis import Analysis
from f3eo.bench.report.cells import NOTHING, Cell, Table
from f3eo.bench.run.metrics import (
    CORRUPTED,
    CORRUPTION_LOST,
    INT4_LOST,
    INT8_LOST,
    NOISE,
    PRUNED50_LOST,
    PRUNED80_LOST,
    SCALED_CALIBRATION,
    SCALED_LOSS,
    Metric,
)
from f3eo.bench.statistics.means import complete, means

MEASURES: Sequence[Metric] = (
    CORRUPTED,
    CORRUPTION_LOST,
    INT8_LOST,
    INT4_LOST,
    PRUNED50_LOST,
    PRUNED80_LOST,
    NOISE,
    SCALED_CALIBRATION,
    SCALED_LOSS,
)
AGAINST_BASE = (INT4_LOST,)
"""Measures that are also given relative to the base that a method wraps."""


def robustness_table(analysis: Analysis) -> Table | None:
    """Means over tasks of the means over finished runs; the best of each measure is marked.

    A measure is averaged over the tasks where every method has it. Below the measures of
    AGAINST_BASE stands the sum over the sum of the bases, for methods that wrap one.

    Returns:
        None if no row holds any of the measures.
    """
    lines: dict[str, list[Cell]] = {method: [] for method in analysis.methods}
    columns: list[str] = []
    for metric in MEASURES:
        known = means(analysis.study.rows, metric)
        tasks = complete(known)
        if not tasks:
            continue
        columns.append(f"{metric.name}, {len(tasks)} task{'s' if len(tasks) > 1 else ''}")
        average = {m: fmean(known[task][m] for task in tasks) for m in known[tasks[0]]}
        best = (max if metric.larger_is_better else min)(average.values())
        for method, cells in lines.items():
            if method not in average:
                cells.append(Cell())
                continue
            small = ""
            if metric in AGAINST_BASE and (ratio := _of_base(analysis, known, tasks, method)):
                small = f"{ratio} of its bases'"
            text = f"{average[method]:.{2 if metric.percent else 4}f}"
            cells.append(Cell(text, small, average[method] == best))
    return Table(columns, lines) if columns else None


def _of_base(
    analysis: Analysis,
    known: Mapping[str, Mapping[str, float]],
    tasks: Sequence[str],
    method: str,
) -> str:
    """The method's sum over tasks over that of its bases; empty for a method without a base."""
    bases = analysis.study.bases(method)
    pairs = [(known[t][method], known[t].get(bases[t], 0.0)) for t in tasks if t in bases]
    if not pairs:
        return ""
    own, base = (sum(column) for column in zip(*pairs, strict=True))
    return f"{own / base:.2f}" if base > 0 else NOTHING
