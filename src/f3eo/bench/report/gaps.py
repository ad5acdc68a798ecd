"""What an incomplete study lacks."""

from collections import Counter

from f3eo.bench.report.study_data import StudyData
from f3eo.bench.statistics.goals import OURS
from f3eo.bench.statistics.paired import FEWEST


def gaps(study: StudyData) -> list[str]:
    """What a complete study would have and this one lacks, one sentence each."""
    sentences = list(study.damaged)
    present = {(row["task"], row["method"]) for row in study.rows}
    for task in study.tasks:
        if absent := [method for method in study.methods if (task, method) not in present]:
            sentences.append(f"{task} has no runs of {', '.join(absent)}.")
    for name in ("tasks", "methods"):
        if absent := [n for n in study.asked.get(name) or () if n not in getattr(study, name)]:
            sentences.append(f"Of the {name} asked for, {', '.join(absent)} has no run yet.")
    counts = Counter((row["task"], row["method"]) for row in study.rows)
    most = max(study.asked.get("seeds", 0), *counts.values(), 0)
    if fewer := {task for (task, _), count in counts.items() if count < most}:
        listed = ", ".join(task for task in study.tasks if task in fewer)
        sentences.append(f"Some methods have fewer than {most} seeds on {listed}.")
    if max(counts.values(), default=0) < FEWEST:
        sentences.append(f"With fewer than {FEWEST} seeds nothing is tested.")
    if OURS not in study.methods:
        sentences.append(f"There is no run of {OURS}, so the goals cannot be judged.")
    if not study.ablation:
        sentences.append("No ablation has been run.")
    if not study.sensitivity:
        sentences.append("No grids of learning rate and strength have been run.")
    if not study.trials:
        sentences.append("No trials of the tuning are kept here.")
    return sentences
