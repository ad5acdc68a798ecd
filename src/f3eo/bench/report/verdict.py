"""What is better than what, and what cannot be told apart, in plain words."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import polars as pl

from f3eo.bench.methods import label
from f3eo.bench.run.metrics import Metric
from f3eo.bench.statistics.welch import Difference, differences, interval

Relation = Literal["better", "worse", "level"]


class Verdict(NamedTuple):
    """The judgement of one metric on one task.

    Attributes:
        metric: what is judged.
        order: the methods with a finished run, the best mean first.
        single: those with one run only, of which nothing can be said.
        relations: by method, whom it is better than, worse than and level with.
        pairs: the difference, first minus second, by (first, second), both ways round.
    """

    metric: Metric
    order: list[str]
    single: list[str]
    relations: dict[str, dict[Relation, list[str]]]
    pairs: dict[tuple[str, str], Difference]

    @property
    def leaders(self) -> set[str]:
        """The best mean, and every one not distinguishable from it."""
        if not self.order or self.order[0] in self.single:
            return set(self.order[:1])
        first = self.order[0]
        return {first, *self.relations[first]["level"]}


def judge(finals: pl.DataFrame, metric: Metric) -> Verdict:
    """Compare every pair of methods by one metric.

    Args:
        finals: the finished runs of one task, as `statistics.finals` gives them.
        metric: what to judge by.
    """
    samples: dict[str, list[float]] = {}
    if not finals.is_empty():
        for (method,), part in finals.group_by("method", maintain_order=True):
            samples[str(method)] = (part[metric.column] * metric.factor).to_list()
    means = {method: interval(values).mean for method, values in samples.items()}
    order = sorted(means, key=means.__getitem__, reverse=metric.larger_is_better)
    found = differences({method: samples[method] for method in order})
    turned = [Difference(d.second, d.first, -d.mean, -d.high, -d.low, d.p) for d in found]
    return Verdict(
        metric,
        order,
        [method for method in order if len(samples[method]) == 1],
        {method: relations(found, method, metric.larger_is_better) for method in order},
        {(d.first, d.second): d for d in found + turned},
    )


def relations(
    pairs: Sequence[Difference], method: str, larger_is_better: bool
) -> dict[Relation, list[str]]:
    """The methods that one is better than, worse than, and not distinguishable from."""
    found: dict[Relation, list[str]] = {"better": [], "worse": [], "level": []}
    for pair in pairs:
        if method not in (pair.first, pair.second):
            continue
        other = pair.second if method == pair.first else pair.first
        ahead = ((pair.mean > 0) == (method == pair.first)) == larger_is_better
        found["level" if not pair.distinguishable else "better" if ahead else "worse"].append(other)
    return found


def summary(verdict: Verdict) -> str:
    """The verdict on the method with the best mean, in one sentence."""
    if not verdict.order:
        return "No run finished."
    first = verdict.order[0]
    name = verdict.metric.name.split(" (")[0].lower()
    level = "highest" if verdict.metric.larger_is_better else "lowest"
    lead = f"{label(first)} has the {level} mean {name}"
    if len(verdict.order) == 1:
        return f"{lead}; there is nothing to compare it with."
    if verdict.single:
        return f"{lead}; with a single seed nothing can be said about chance."
    found = verdict.relations[first]
    parts = []
    if found["better"]:
        parts.append(f"it is better than {names(found['better'], 6)}")
    if found["level"]:
        parts.append(f"it is not distinguishable from {names(found['level'], 6)}")
    return f"{lead}: {', and '.join(parts)}."


def names(methods: Sequence[str], most: int = 1000) -> str:
    """The names of methods as a list in a sentence, or, of more than `most`, their number."""
    if len(methods) > most:
        return f"{len(methods)} others"
    labels = [label(method) for method in methods]
    return " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)
