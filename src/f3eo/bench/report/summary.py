"""The results of a study: a short summary in Markdown, and all numbers as JSON."""

import math
from typing import Any

from f3eo.bench.methods import label
from f3eo.bench.report.analysis import Analysis
from f3eo.bench.report.cells import markdown
from f3eo.bench.report.study_tables import score_table
from f3eo.bench.statistics.goals import OURS, Goal
from f3eo.bench.statistics.profiles import profile_score


def facts(analysis: Analysis) -> dict[str, Any]:
    """All results as plain data for JSON; numbers that are not finite become None."""
    return {
        "study": analysis.study.name,
        "goals": [_goal(goal) for goal in analysis.goals],
        "goals_corrected_by_task": [_goal(goal) for goal in analysis.goals_by_task],
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
        "ranks": {
            "average": analysis.ranks.average,
            "tasks": analysis.ranks.tasks,
            "friedman_p": _finite(analysis.ranks.p),
            "critical_difference": _finite(analysis.ranks.critical),
        },
        "time_to_target": {
            task: {method: _finite(time) for method, time in times.items()}
            for task, times in analysis.times.items()
        },
        "profile_score": {method: profile_score(r) for method, r in analysis.ratios.items()},
    }


def text(analysis: Analysis) -> str:
    """The summary in Markdown."""
    lines = [f"# {analysis.study.name}", "", "| goal | tasks | corrected within tasks | |"]
    lines += ["|---|---:|---:|---|"]
    for goal, within in zip(analysis.goals, analysis.goals_by_task, strict=True):
        claim = f"{label(OURS)} is {goal.claim}, on at least {100 * goal.wanted:g} % of the tasks"
        held = [f"{len(g.held)} of {g.total}" for g in (goal, within)]
        lines.append(f"| {claim} | {' | '.join(held)} | {_outcome(goal)} |")
    lines += ["", "Mean score; bold: best; ▲ ▼: significantly better or worse than F3EO.", ""]
    lines += markdown(score_table(analysis), "method")
    if analysis.records:
        lines += ["", f"| {label(OURS)} against | better | level | worse |", "|---|---:|---:|---:|"]
        lines += [
            f"| {label(r.rival)} | {len(r.better)} | {len(r.level)} | {len(r.worse)} |"
            for r in analysis.records
        ]
    if analysis.ranks.average:
        ranks = ", ".join(f"{label(m)} {r:.2f}" for m, r in analysis.ranks.average.items())
        critical = analysis.ranks.critical
        far = f"; critical difference {critical:.2f}" if math.isfinite(critical) else ""
        lines += ["", f"Average ranks over {len(analysis.ranks.tasks)} tasks: {ranks}{far}."]
    return "\n".join(lines) + "\n"


def _outcome(goal: Goal) -> str:
    return {True: "reached", False: "not reached", None: "not judged"}[goal.reached]


def _goal(goal: Goal) -> dict[str, Any]:
    return goal._asdict() | {"total": goal.total, "reached": goal.reached}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
