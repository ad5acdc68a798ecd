"""The verdict of Welch's tests on one task: who is better than whom, in words."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from f3eo.bench.methods import label
from f3eo.bench.run.metrics import Metric
from f3eo.bench.statistics.significance import Relation
from f3eo.bench.statistics.student import interval
from f3eo.bench.statistics.welch import Difference, differences


class Verdict(NamedTuple):
    """The comparison of all methods on one task by one metric.

    Attributes:
        metric: the compared quantity.
        order: the methods with a finished run, the best mean first.
        single: the methods with one run only, which are not tested.
        relations: by method, the methods it is better than, worse than and level with.
        pairs: differences, first minus second, by (first, second), in both orders.
    """

    metric: Metric
    order: list[str]
    single: list[str]
    relations: dict[str, dict[Relation, list[str]]]
    pairs: dict[tuple[str, str], Difference]

    @property
    def leaders(self) -> set[str]:
        """The method with the best mean, and all methods not distinguishable from it."""
        if not self.order or self.order[0] in self.single:
            return set(self.order[:1])
        first = self.order[0]
        return {first, *self.relations[first]["level"]}


def judge(finals: pl.DataFrame, metric: Metric) -> Verdict:
    """Compare every pair of methods by one metric.

    Args:
        finals: the finished runs of one task, from `statistics.frames.finals`; those without the
            quantity do not count.
        metric: the compared quantity.
    """
    samples: dict[str, list[float]] = {}
    if metric.column in finals.columns:  # rows of earlier versions lack what was not measured then
        known = finals.drop_nulls(metric.column)
        for (method,), part in known.group_by("method", maintain_order=True):
            samples[str(method)] = (part[metric.column] * metric.factor).to_list()
    means = {method: interval(values).mean for method, values in samples.items()}
    order = sorted(means, key=means.__getitem__, reverse=metric.larger_is_better)
    tested = differences({method: samples[method] for method in order})
    turned = [Difference(d.second, d.first, -d.mean, -d.high, -d.low, d.p) for d in tested]
    return Verdict(
        metric,
        order,
        [method for method in order if len(samples[method]) == 1],
        {method: relations(tested, method, metric.larger_is_better) for method in order},
        {(d.first, d.second): d for d in tested + turned},
    )


def relations(
    pairs: Sequence[Difference], method: str, larger_is_better: bool
) -> dict[Relation, list[str]]:
    """The methods that `method` is better than, worse than and level with."""
    others: dict[Relation, list[str]] = {"better": [], "worse": [], "level": []}
    for pair in pairs:
        if method not in (pair.first, pair.second):
            continue
        other = pair.second if method == pair.first else pair.first
        ahead = ((pair.mean > 0) == (method == pair.first)) == larger_is_better
        relation = "level" if not pair.distinguishable else "better" if ahead else "worse"
        others[relation].append(other)
    return others


def summary(verdict: Verdict) -> str:
    """One sentence on the method with the best mean."""
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
    others = verdict.relations[first]
    parts = []
    if others["better"]:
        parts.append(f"it is better than {names(others['better'], 6)}")
    if others["level"]:
        parts.append(f"it is not distinguishable from {names(others['level'], 6)}")
    return f"{lead}: {', and '.join(parts)}."


def names(methods: Sequence[str], most: int = 1000) -> str:
    """Method names as a list in a sentence; their number if there are more than `most`."""
    if len(methods) > most:
        return f"{len(methods)} others"
    labels = [label(method) for method in methods]
    return " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)
