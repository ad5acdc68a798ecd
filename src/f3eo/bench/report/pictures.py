"""Every picture a study has data for, by name."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import polars as pl

from f3eo.bench.report import study_figures
from f3eo.bench.report.analysis import Analysis, price
from f3eo.bench.report.study_data import StudyData
from f3eo.bench.statistics.frames import curves


def pictures(analysis: Analysis) -> dict[str, bytes]:
    """Draw the pictures of a study.

    Returns:
        SVG files by name; a picture without data is absent.
    """
    study, drawn = analysis.study, dict[str, bytes]()
    if analysis.records:
        drawn["records"] = study_figures.records_figure(
            {r.rival: (len(r.better), len(r.level), len(r.worse)) for r in analysis.records}
        )
    views = {"": analysis, "-loss": analysis.by_loss, "-calibration": analysis.by_calibration}
    for name, view in views.items():
        if len(view.ranks.average) > 1:
            drawn[f"ranks{name}"] = study_figures.ranks_figure(view.ranks)
    if any(analysis.ratios.values()):
        drawn["profile"] = study_figures.profile_figure(analysis.ratios)
    for task, scores in analysis.tasks.items():
        lines = _with_nominal(curves(analysis.on(task)), analysis.on(task), study.second(task))
        if not lines.is_empty():
            drawn[f"curves-{task}"] = study_figures.curve_figure(
                lines, list(scores.means), scores.metric, study.unit, study.target(task)
            )
    for task in dict.fromkeys(row["task"] for row in study.sensitivity):
        panels = sensitivity(study, task)
        drawn[f"sensitivity-{task}"] = study_figures.sensitivity_figure(panels, study.metric(task))
    return drawn


def sensitivity(study: StudyData, task: str) -> dict[tuple[str, str], study_figures.Grid]:
    """The mean score by (learning rate, strength) over finished runs, nan if none finished.

    Returns:
        One grid per rule and kind of strength.
    """
    metric = study.metric(task)
    cells: dict[tuple[str, str], dict[tuple[float, float], list[float]]] = {}
    for row in study.sensitivity:
        if row["task"] != task:
            continue
        options = row["config"]["options"]
        kind = options.get("strength", "ratio")
        place = options["lr"], options["ratio" if kind == "ratio" else "value"]
        grid = cells.setdefault((options.get("rule", "decoupled"), kind), {})
        values = grid.setdefault(place, [])
        if row["status"] == "finished":
            values.append(row["final"][metric.column] * metric.factor)
    return {
        panel: {place: fmean(values) if values else math.nan for place, values in grid.items()}
        for panel, grid in cells.items()
    }


def _with_nominal(
    lines: pl.DataFrame, rows: Sequence[Mapping[str, Any]], second: float
) -> pl.DataFrame:
    """Add the column `nominal`, step · price · `second`."""
    if lines.is_empty():
        return lines
    prices = {row["method"]: price(row) for row in rows}  # type: ignore[arg-type]
    factor = pl.col("method").replace_strict(prices, return_dtype=pl.Float64) * second
    return lines.with_columns(nominal=pl.col("step") * factor)
