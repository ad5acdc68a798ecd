"""The results of a study: a short summary in Markdown, and all numbers as JSON."""

import math
from typing import Any

from f3eo.bench.methods import label
from f3eo.bench.report.ablation import ablation_table
from f3eo.bench.report.analysis import Analysis
from f3eo.bench.report.cells import NOTHING, markdown
from f3eo.bench.report.robustness import robustness_table
from f3eo.bench.report.study_tables import score_table
from f3eo.bench.statistics.goals import OURS, Goal, Level
from f3eo.bench.statistics.profiles import profile_score

MARKS = "bold: best; ▲ ▼: significantly better or worse"
"""What the marks of a table say; it goes on "than ..."."""


def facts(analysis: Analysis) -> dict[str, Any]:
    """All results as plain data for JSON; numbers that are not finite become None."""
    return {
        "study": analysis.study.name,
        "goals": [_goal(goal) for goal in analysis.goals],
        "goals_corrected_by_task": [_goal(goal) for goal in analysis.goals_by_task],
        "levels": [level._asdict() | {"reached": level.reached} for level in analysis.levels],
        "records": [record._asdict() for record in analysis.records],
        "scores": {
            task: {
                "metric": scores.metric.name,
                "untrained": _finite(scores.floor),
                "means": {method: _finite(mean) for method, mean in scores.means.items()},
                "lost": dict(scores.lost),
            }
            for task, scores in analysis.tasks.items()
        },
        "differences": [
            {
                "task": pair.task,
                "rival": pair.second,
                **{name: _finite(value) for name, value in pair.advantage._asdict().items()},
                "p": _finite(pair.p),
                "verdict": pair.relation,
            }
            for pair in analysis.ours.values()
        ],
        "ranks": _ranks(analysis),
        "ranks_by_loss": _ranks(analysis.by_loss),
        "ranks_by_calibration": _ranks(analysis.by_calibration),
        "time_to_target": {
            task: {method: _finite(time) for method, time in times.items()}
            for task, times in analysis.times.items()
        },
        "profile_score": {method: profile_score(r) for method, r in analysis.ratios.items()},
    }


def text(analysis: Analysis) -> str:
    """The summary in Markdown."""
    return f"# {analysis.study.name}\n\n" + "\n".join(tables(analysis)) + "\n"


def tables(analysis: Analysis) -> list[str]:
    """The lines of the tables, without a head."""
    lines = ["| goal | found | corrected within tasks | |", "|---|---:|---:|---|"]
    for level in analysis.levels:
        lines.append(f"| {claim_of_level(level)} | {found_of_level(level)} | | {outcome(level)} |")
    for goal, within in zip(analysis.goals, analysis.goals_by_task, strict=True):
        held = " | ".join(found_of_goal(g) for g in (goal, within))
        lines.append(f"| {claim_of_goal(goal)} | {held} | {outcome(goal)} |")
    for title, view in (
        ("Mean score", analysis),
        ("Test loss in nats", analysis.by_loss),
        ("Expected calibration error in %", analysis.by_calibration),
    ):
        if any(scored.values for scored in view.tasks.values()):
            lines += ["", *_view(title, view)]
    if table := robustness_table(analysis):
        lines += ["", "Robustness, means over tasks; bold: best.", ""]
        lines += markdown(table, "method")
    if table := ablation_table(analysis):
        lines += ["", f"Ablation; {MARKS} than the method itself.", ""]
        lines += markdown(table, "changed", label=str)
    return lines


def claim_of_level(level: Level) -> str:
    """A goal that is a number, in words."""
    way = "at least" if level.larger_is_better else "at most"
    first = ", and the first" if level.leader else ""
    return f"{level.claim}: {way} {level.limit:g}{first}"


def found_of_level(level: Level) -> str:
    """What was found for it, with the leader where that is another."""
    if level.found is None:
        return NOTHING
    ahead = f" ({label(level.leader)} first)" if level.leader not in ("", OURS) else ""
    return f"{level.found:.4g}" + ahead


def claim_of_goal(goal: Goal) -> str:
    """A goal of significance, in words."""
    share = f"{100 * goal.wanted:g} % of the tasks"
    return f"significantly better than {label(goal.rival)} on at least {share}, worse on none"


def found_of_goal(goal: Goal) -> str:
    """On how many tasks it holds, and on how many the opposite does."""
    worse = f", worse on {len(goal.worse)}" if goal.worse else ""
    return f"{len(goal.held)} of {goal.total}{worse}"


def outcome(goal: Goal | Level) -> str:
    """Whether a goal is reached, in words."""
    return {True: "reached", False: "not reached", None: "not judged"}[goal.reached]


def _view(title: str, view: Analysis) -> list[str]:
    """Table, records and ranks by one quantity."""
    lines = [f"{title}; {MARKS} than F3EO.", ""]
    lines += markdown(score_table(view), "method")
    if view.records:
        lines += ["", f"| {label(OURS)} against | better | level | worse |", "|---|---:|---:|---:|"]
        lines += [
            f"| {label(r.rival)} | {len(r.better)} | {len(r.level)} | {len(r.worse)} |"
            for r in view.records
        ]
    if not view.ranks.average:
        return lines
    ranks = ", ".join(f"{label(m)} {r:.2f}" for m, r in view.ranks.average.items())
    critical = view.ranks.critical
    far = f"; critical difference {critical:.2f}" if math.isfinite(critical) else ""
    return [*lines, "", f"Average ranks over {len(view.ranks.tasks)} tasks: {ranks}{far}."]


def _ranks(view: Analysis) -> dict[str, Any]:
    return {
        "average": view.ranks.average,
        "tasks": view.ranks.tasks,
        "friedman_p": _finite(view.ranks.p),
        "critical_difference": _finite(view.ranks.critical),
    }


def _goal(goal: Goal) -> dict[str, Any]:
    return goal._asdict() | {"total": goal.total, "reached": goal.reached}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
