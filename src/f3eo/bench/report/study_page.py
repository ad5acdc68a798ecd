"""The report of a study: one self-contained page, its pictures and a short summary."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from f3eo.bench.execute import disk
from f3eo.bench.report import page
from f3eo.bench.report.ablation import ablation_table
from f3eo.bench.report.analysis import Analysis
from f3eo.bench.report.cells import Table
from f3eo.bench.report.drawing import data_uri
from f3eo.bench.report.gaps import gaps
from f3eo.bench.report.pictures import pictures
from f3eo.bench.report.provenance import commands, environments
from f3eo.bench.report.robustness import robustness_table
from f3eo.bench.report.study_data import StudyData, load
from f3eo.bench.report.study_tables import (
    common_options,
    cost_table,
    difference_table,
    matrix,
    metric_table,
    options_table,
    score_table,
    target_table,
)
from f3eo.bench.report.summary import (
    claim_of_goal,
    claim_of_level,
    facts,
    found_of_goal,
    found_of_level,
    text,
)
from f3eo.bench.run.metrics import (
    ACCURACY,
    CORRUPTED,
    EIGENVALUE,
    GAP,
    INT4_LOST,
    NOISE,
    PRUNED80_LOST,
    SCALED_CALIBRATION,
    SCALED_LOSS,
    TRACE,
    Metric,
)
from f3eo.bench.statistics.goals import OURS, SHARPNESS
from f3eo.bench.statistics.paired import FEWEST
from f3eo.bench.statistics.profiles import LIMIT, profile_score
from f3eo.bench.statistics.significance import LEVEL

OTHERS: Sequence[tuple[Metric, bool]] = (
    (ACCURACY, True),
    (SCALED_LOSS, True),
    (SCALED_CALIBRATION, True),
    (CORRUPTED, True),
    (INT4_LOST, True),
    (PRUNED80_LOST, True),
    (NOISE, False),
    (GAP, False),
    (TRACE, False),
    (EIGENVALUE, False),
)
"""Metrics of finished runs, and whether the page marks the best value."""


def report(folder: Path, tell: Callable[[str], object] = lambda text: None) -> Path:
    """Write `report.html`, `summary.md`, `summary.json` and `pictures/` into a study's folder.

    Args:
        folder: the study's folder.
        tell: called with one sentence per damaged file; default ignores them.

    Returns:
        The path of the page.

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
    """The page as HTML.

    Args:
        analysis: the statistics of the study.
        drawn: its pictures as SVG files, by name.
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
        images={name: data_uri(svg) for name, svg in drawn.items()},
        scores=score_table(analysis),
        metrics={task: study.metric(task) for task in study.tasks},
        differences=difference_table(analysis),
        goals=_goals(analysis),
        views=_views(analysis),
        robustness=robustness_table(analysis),
        matrix=matrix(analysis),
        targets=target_table(analysis, lambda task, time: time * study.second(task)),
        unit=study.unit,
        target_values={task: study.target(task) for task in study.tasks},
        profile_score={m: profile_score(r) for m, r in analysis.ratios.items()},
        unreached=[t for t, times in analysis.times.items() if math.isinf(min(times.values()))],
        limit=LIMIT,
        best=metric_table(analysis, study.metric, "best"),
        others=_others(analysis),
        costs=cost_table(analysis),
        ablation=ablation_table(analysis),
        chosen=options_table(analysis),
        common=common_options(study.rows),
        trials=_trials(study),
        bases=_bases(study),
        spaces=study.asked.get("spaces") or {},
        failures=_failures(rows),
        warned=[row for row in rows if row["warnings"]],
        finished=sum(row["status"] == "finished" for row in rows),
        environments=environments(rows),
        commands=commands([*study.trials, *rows]),
        descriptions={task: study.description(task) for task in study.tasks},
        level=LEVEL,
        fewest=FEWEST,
        ours=OURS,
        sharpness=[method for method in SHARPNESS if method in study.methods],
    )


def _goals(analysis: Analysis) -> list[dict[str, Any]]:
    """The goals in words: numbers to reach, then claims of significance."""
    numbers = [
        {"claim": claim_of_level(g), "found": found_of_level(g), "reached": g.reached}
        for g in analysis.levels
    ]
    claims = [
        {
            "claim": claim_of_goal(goal),
            "found": found_of_goal(goal),
            "within": found_of_goal(within),
            "worse": goal.worse,
            "reached": goal.reached,
        }
        for goal, within in zip(analysis.goals, analysis.goals_by_task, strict=True)
    ]
    return [{"within": "", "worse": []} | entry for entry in numbers] + claims


def _views(analysis: Analysis) -> list[dict[str, Any]]:
    """The comparisons by test loss and by calibration error that have data."""
    views = {
        "loss": ("Test loss", "in nats", analysis.by_loss),
        "calibration": ("Calibration", "expected calibration error in %", analysis.by_calibration),
    }
    return [
        {
            "name": name,
            "title": title,
            "unit": unit,
            "analysis": view,
            "scores": score_table(view),
            "differences": difference_table(view),
        }
        for name, (title, unit, view) in views.items()
        if any(scored.values for scored in view.tasks.values())
    ]


def _others(analysis: Analysis) -> list[tuple[Metric, bool, Table]]:
    """The tables of OTHERS that have data."""
    tables = []
    for metric, judged in OTHERS:
        table = metric_table(analysis, lambda task, of=metric: of, judged=judged)
        if table:
            tables.append((metric, judged, table))
    return tables


def _bases(study: StudyData) -> dict[str, list[str]]:
    """The tasks on which wrappers wrap a base, by base."""
    tasks: dict[str, dict[str, None]] = {}
    for row in study.rows:
        if base := row["config"]["options"].get("base"):
            tasks.setdefault(base, {})[row["task"]] = None
    return {base: list(names) for base, names in tasks.items()}


def _trials(study: StudyData) -> dict[str, int]:
    """The least and the largest number of settings per method and task, and all trials."""
    settings: dict[tuple[str, str], set[str]] = {}
    for row in study.trials:
        tried = settings.setdefault((row["task"], row["method"]), set())
        tried.add(json.dumps(row["config"]["options"], sort_keys=True))
    counts = [len(tried) for tried in settings.values()]
    if not counts:
        return {}
    return {"least": min(counts), "most": max(counts), "total": len(study.trials)}


def _failures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs that did not finish, grouped by task, method, variant, status and error."""
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        if row["status"] == "finished":
            continue
        names = ("task", "method", "variant", "status", "error")
        entry = groups.setdefault(
            tuple(str(row[name]) for name in names),
            {name: row[name] for name in names} | {"seeds": [], "traceback": row["traceback"]},
        )
        entry["seeds"].append(row["seed"])
    return list(groups.values())
