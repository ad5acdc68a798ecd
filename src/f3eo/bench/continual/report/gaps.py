"""What an incomplete stream study lacks."""

from collections import Counter

from f3eo.bench.continual.report.names import OURS, label
from f3eo.bench.continual.report.study import EQUAL, StreamStudy
from f3eo.bench.statistics.paired import FEWEST


def gaps(study: StreamStudy) -> list[str]:
    """What a complete study would have and this one lacks, one sentence each."""
    sentences = list(study.damaged)
    for place in study.places:
        here = study.at(place)
        if absent := [label(learner) for learner in study.learners if learner not in here]:
            sentences.append(f"At {place.title} there are no runs of {', '.join(absent)}.")
    for name in ("streams", "learners"):
        asked = study.asked.get(name) or ()
        if absent := [entry for entry in asked if entry not in getattr(study, name)]:
            sentences.append(f"No run yet of these {name}: {', '.join(absent)}.")
    equals = {place.equal for place in study.places}
    wanted = study.asked.get("equal") or EQUAL
    if absent := [EQUAL[equal] for equal in wanted if equal not in equals]:
        sentences.append(f"There are no runs at {', '.join(absent)}.")
    counts = Counter(
        (place, row["learner"]) for place, rows in study.places.items() for row in rows
    )
    most = max(study.asked.get("seeds") or 0, *counts.values(), 0)
    if fewer := {place for (place, _), count in counts.items() if count < most}:
        listed = "; ".join(place.title for place in study.places if place in fewer)
        sentences.append(f"Some learners have fewer than {most} seeds ({listed}).")
    if max(counts.values(), default=0) < FEWEST:
        sentences.append(f"With fewer than {FEWEST} seeds nothing is tested.")
    short = {len(row["scores"][-1]) for row in study.results if row["status"] == "finished"}
    if 1 in short:
        sentences.append("Where a stream has one stage, nothing can be forgotten or transferred.")
    if OURS not in study.learners:
        sentences.append(f"There is no run of {label(OURS)}, so its claims cannot be judged.")
    return sentences
