"""One learner against others at several places: one family of tests."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from f3eo.bench.continual.report.differences import (
    Difference,
    advantages,
    compare,
    corrected,
    difference,
    not_worse,
)
from f3eo.bench.continual.report.quantities import LAST, Quantity
from f3eo.bench.continual.report.study import Place, StreamStudy
from f3eo.bench.continual.report.values import Values
from f3eo.bench.statistics.significance import Relation


class Finding(NamedTuple):
    """One comparison.

    Attributes:
        difference: by how much ours is better, p corrected over the family.
        keeps: whether ours is at least equal on the last task; None where that is not asked, or
            cannot be told.
        asked: whether it is asked.
    """

    difference: Difference
    keeps: bool | None
    asked: bool

    @property
    def relation(self) -> Relation | None:
        """How ours compares; better than another only where it keeps what is asked."""
        found = self.difference.relation
        return "level" if found == "better" and self.bought else found

    @property
    def bought(self) -> bool:
        """Whether the comparison is not at an equal score on the last task."""
        return self.asked and self.keeps is not True


class At(NamedTuple):
    """What is compared.

    Attributes:
        place: stream and budget.
        quantity: name of the quantity.
        rival: name of the other learner.
    """

    place: Place
    quantity: str
    rival: str


Findings = Mapping[At, Finding]


def findings(
    study: StreamStudy,
    places: Iterable[Place],
    quantities: Sequence[Quantity],
    ours: str,
    rivals: Callable[[str], bool],
    at_equal_last: bool = False,
) -> Findings:
    """Compare one learner with others at each place, with Holm's correction over all of it.

    Args:
        study: the results.
        places: where.
        quantities: what is compared.
        ours: the learner.
        rivals: learner -> whether it is compared; `ours` itself never is.
        at_equal_last: whether being better asks for an equal score on the last task.
    """
    found, kept = dict[At, Difference](), dict[At, bool | None]()
    for place in places:
        others = [name for name in study.at(place) if name != ours and rivals(name)]
        last = study.values(place, LAST) if at_equal_last else None
        for quantity in quantities:
            values = study.values(place, quantity)
            for rival in others:
                if compared := compare(values, ours, rival):
                    at = At(place, quantity.name, rival)
                    found[at] = compared
                    kept[at] = not_worse(last, ours, rival) if last else None
    return {at: Finding(d, kept[at], at_equal_last) for at, d in corrected(found).items()}


def over_streams(several: Iterable[Values], ours: str, rival: str) -> Difference | None:
    """The advantage of `ours` in the mean over streams, paired by seed.

    Args:
        several: the same quantity at several places, in one unit.
        ours, rival: the learners. Places without both do not count.

    Returns:
        None without a seed that all places have.
    """
    gains = [found for values in several if (found := advantages(values, ours, rival))]
    if not gains:
        return None
    seeds = sorted(set.intersection(*(set(found) for found in gains)))
    return difference([fmean(found[seed] for found in gains) for seed in seeds])
