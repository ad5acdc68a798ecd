"""`f3eo report`: a study as one self-contained page, its pictures, and a summary to keep."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from f3eo.bench.execute import disk
from f3eo.bench.report import figures, page, tables
from f3eo.bench.report.analysis import Analysis, price
from f3eo.bench.report.comparison_page import distinct, environments
from f3eo.bench.report.findings import Findings, load
from f3eo.bench.report.plots import embedded
from f3eo.bench.report.summary import facts, text
from f3eo.bench.run.metrics import ACCURACY, CALIBRATION, EIGENVALUE, GAP, TEST_LOSS, TRACE, Metric
from f3eo.bench.statistics.goals import OURS, SHARPNESS
from f3eo.bench.statistics.paired import FEWEST
from f3eo.bench.statistics.profiles import LIMIT, integrated
from f3eo.bench.statistics.welch import LEVEL, curves

OTHERS: Sequence[tuple[Metric, bool]] = (
    (ACCURACY, True),
    (TEST_LOSS, True),
    (CALIBRATION, True),
    (GAP, False),
    (TRACE, False),
    (EIGENVALUE, False),
)
"""Measured at the end, and whether it is better or worse by itself."""


def report(folder: Path, tell: Callable[[str], object] = lambda text: None) -> Path:
    """Write `report.html`, `summary.md`, `summary.json` and `pictures/` into a study's folder.

    Args:
        folder: of the study.
        tell: called with what was passed over in reading.

    Returns:
        The page.

    Raises:
        ValueError: the folder holds no results.
    """
    study = load(folder)
    for sentence in study.damaged:
        tell(sentence)
    disk.prepare(folder / "pictures")
    analysis = Analysis(study)
    drawn = pictures(analysis)
    for name, svg in drawn.items():
        disk.write(folder / "pictures" / f"{name}.svg", svg)
    facts_text = json.dumps(facts(analysis), indent=1, ensure_ascii=False)
    disk.write(folder / "summary.json", facts_text + "\n")
    disk.write(folder / "summary.md", text(analysis))
    disk.write(folder / "report.html", render(analysis, drawn))
    return folder / "report.html"


def render(analysis: Analysis, drawn: Mapping[str, bytes]) -> str:
    """The page as text.

    Args:
        analysis: of the study.
        drawn: its pictures, by name.
    """
    study = analysis.study
    rows = list(study.results)
    return page.render(
        "study.html.j2",
        title=study.name,
        analysis=analysis,
        study=study,
        gaps=gaps(study),
        seeds=sorted({row["seed"] for row in study.rows}),
        images={name: embedded(svg) for name, svg in drawn.items()},
        scores=tables.score_table(analysis),
        metrics={task: study.metric(task) for task in study.tasks},
        differences=tables.difference_table(analysis),
        matrix=tables.matrix(analysis),
        targets=tables.target_table(analysis, lambda task, time: time * study.second(task)),
        unit=study.unit,
        target_values={task: study.target(task) for task in study.tasks},
        integrated={m: integrated(r) for m, r in analysis.ratios.items()},
        unreached=[t for t, times in analysis.times.items() if math.isinf(min(times.values()))],
        limit=LIMIT,
        best=tables.metric_table(analysis, study.metric, "best"),
        others=[
            (one, judged, table)
            for one, judged in OTHERS
            if (table := tables.metric_table(analysis, lambda task, one=one: one, judged=judged))
        ],
        costs=tables.cost_table(analysis),
        ablation=tables.ablation_table(analysis),
        chosen=tables.options_table(analysis),
        common=tables.common_options(study.rows),
        trials=_trials(study),
        bases=_bases(study),
        spaces=study.asked.get("spaces") or {},
        failures=_failures(rows),
        warned=[row for row in rows if row["warnings"]],
        finished=sum(row["status"] == "finished" for row in rows),
        environments=environments([row for row in rows if row["status"] == "finished"]),
        commands=distinct([*study.trials, *rows], "command"),
        descriptions={task: study.description(task) for task in study.tasks},
        level=LEVEL,
        fewest=FEWEST,
        ours=OURS,
        sharpness=[method for method in SHARPNESS if method in study.methods],
    )


def _bases(study: Findings) -> dict[str, list[str]]:
    """The tasks on which methods that wrap another stand over it, by what they wrap."""
    found: dict[str, dict[str, None]] = {}
    for row in study.rows:
        if base := row["config"]["options"].get("base"):
            found.setdefault(base, {})[row["task"]] = None
    return {base: list(tasks) for base, tasks in found.items()}


def pictures(analysis: Analysis) -> dict[str, bytes]:
    """Every picture there is data for, by name, as SVG."""
    study, found = analysis.study, dict[str, bytes]()
    if analysis.records:
        found["records"] = figures.records_figure(
            {r.rival: (len(r.better), len(r.level), len(r.worse)) for r in analysis.records}
        )
    if len(analysis.ranks.average) > 1:
        found["ranks"] = figures.ranks_figure(analysis.ranks)
    if any(analysis.ratios.values()):
        found["profile"] = figures.profile_figure(analysis.ratios)
    for task, scores in analysis.tasks.items():
        lines = _nominal(curves(analysis.on(task)), analysis.on(task), study.second(task))
        if not lines.is_empty():
            found[f"curves-{task}"] = figures.curve_figure(
                lines, list(scores.means), scores.metric, study.unit, study.target(task)
            )
    for task in dict.fromkeys(row["task"] for row in study.sensitivity):
        panels = sensitivity(study, task)
        found[f"sensitivity-{task}"] = figures.sensitivity_figure(panels, study.metric(task))
    return found


def sensitivity(study: Findings, task: str) -> dict[tuple[str, str], figures.Grid]:
    """By rule and kind of weight, the mean score by (learning rate, weight).

    nan where every run was lost; where some were, the mean of the others.
    """
    of = study.metric(task)
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
            values.append(row["final"][of.column] * of.factor)
    return {
        panel: {place: fmean(found) if found else math.nan for place, found in grid.items()}
        for panel, grid in cells.items()
    }


def gaps(study: Findings) -> list[str]:
    """What a whole study would have and this one does not, in sentences."""
    found = list(study.damaged)
    seen = {(row["task"], row["method"]) for row in study.rows}
    for task in study.tasks:
        if absent := [method for method in study.methods if (task, method) not in seen]:
            found.append(f"{task} has no runs of {', '.join(absent)}.")
    for name in ("tasks", "methods"):
        if absent := [n for n in study.asked.get(name) or () if n not in getattr(study, name)]:
            found.append(f"Of the {name} asked for, {', '.join(absent)} has no run yet.")
    counts = Counter((row["task"], row["method"]) for row in study.rows)
    most = max(study.asked.get("seeds", 0), *counts.values(), 0)
    if fewer := {task for (task, _), count in counts.items() if count < most}:
        listed = ", ".join(task for task in study.tasks if task in fewer)
        found.append(f"Some methods have fewer than {most} seeds on {listed}.")
    if max(counts.values(), default=0) < FEWEST:
        found.append(f"With fewer than {FEWEST} seeds nothing is tested.")
    if OURS not in study.methods:
        found.append(f"There is no run of {OURS}, so the goals cannot be judged.")
    for name in ("ablation", "sensitivity", "trials"):
        if not getattr(study, name):
            found.append({
                "ablation": "No ablation has been run.",
                "sensitivity": "No grids of learning rate and weight have been run.",
                "trials": "No trials of the tuning are kept here.",
            }[name])  # fmt: skip
    return found


def _nominal(lines: pl.DataFrame, rows: Sequence[Mapping[str, Any]], second: float) -> pl.DataFrame:
    """With a column `nominal`: steps times their price."""
    if lines.is_empty():
        return lines
    prices = {row["method"]: price(row) for row in rows}  # type: ignore[arg-type]
    factor = pl.col("method").replace_strict(prices, return_dtype=pl.Float64) * second
    return lines.with_columns(nominal=pl.col("step") * factor)


def _trials(study: Findings) -> dict[str, int]:
    """Least and most settings tried for a method on a task, and the number of trials."""
    settings: dict[tuple[str, str], set[str]] = {}
    for row in study.trials:
        found = settings.setdefault((row["task"], row["method"]), set())
        found.add(json.dumps(row["config"]["options"], sort_keys=True))
    counts = [len(found) for found in settings.values()]
    if not counts:
        return {}
    return {"least": min(counts), "most": max(counts), "total": len(study.trials)}


def _failures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs that did not finish, those of one method and task with one error together."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        if row["status"] == "finished":
            continue
        names = ("task", "method", "variant", "status", "error")
        entry = found.setdefault(
            tuple(str(row[name]) for name in names),
            {name: row[name] for name in names} | {"seeds": [], "traceback": row["traceback"]},
        )
        entry["seeds"].append(row["seed"])
    return list(found.values())
