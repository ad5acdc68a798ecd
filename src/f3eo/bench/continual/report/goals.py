"""The goals of the study: what F3EO was to reach, judged from the rows."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from f3eo.bench.continual.report.claims import PLAIN, without_memory
from f3eo.bench.continual.report.differences import Difference
from f3eo.bench.continual.report.findings import findings, over_streams
from f3eo.bench.continual.report.names import OURS, label, measure_of
from f3eo.bench.continual.report.quantities import AVERAGE, FORGETTING, ZERO_STEP, Quantity
from f3eo.bench.continual.report.study import Place, StreamStudy


class Goal(NamedTuple):
    """What a learner was to reach.

    Attributes:
        says: the goal in words.
        ours: the learner.
        rivals: the peers it must be significantly better than, all of them.
        quantity: what is compared.
        streams: where; () means the mean over all streams scored by accuracy.
        least: least mean advantage, in points; default 0.
        share: least share by which the rival's mean must be undercut; default 0.
        at_equal_last: whether the last task must be learnt as well; default False.
    """

    says: str
    ours: str
    rivals: Sequence[str] | Callable[[str], bool]
    quantity: Quantity
    streams: Sequence[str] = ()
    least: float = 0.0
    share: float = 0.0
    at_equal_last: bool = False

    def against(self, learner: str) -> bool:
        """Whether a learner is one of the rivals."""
        return self.rivals(learner) if callable(self.rivals) else learner in self.rivals


class Figure(NamedTuple):
    """One comparison of a goal.

    Attributes:
        stream: where; "" for the mean over streams.
        rival: the peer.
        difference: by how much ours is better, p corrected over the goal's comparisons at a budget.
        share: by what share it undercuts the rival's mean; None where that is not asked.
        reached: whether the comparison is as asked; None with too few seeds.
        bought: whether it fails for the score on the last task alone.
    """

    stream: str
    rival: str
    difference: Difference
    share: float | None
    reached: bool | None
    bought: bool


class Reached(NamedTuple):
    """A goal at one budget.

    Attributes:
        goal: the goal.
        equal: the budget.
        figures: its comparisons.
        missing: what the study lacks to judge it, in words.
    """

    goal: Goal
    equal: str
    figures: Sequence[Figure]
    missing: Sequence[str]

    @property
    def reached(self) -> bool | None:
        """Whether every comparison is as asked; None if one is missing, unless another fails."""
        outcomes = [figure.reached for figure in self.figures]
        if False in outcomes:
            return False
        return None if self.missing or not outcomes or None in outcomes else True


TWENTY = ("permuted-mnist", "rotated-mnist")

GOALS: Sequence[Goal] = (
    Goal(
        "F3EO alone at least 3 points of average accuracy above Stable SGD",
        OURS,
        ("stable_sgd",),
        AVERAGE,
        TWENTY,
        least=3.0,
    ),
    Goal(
        "F3EO within the recipe of Stable SGD at least 3 points above it",
        "f3eo_stable",
        ("stable_sgd",),
        AVERAGE,
        TWENTY,
        least=3.0,
    ),
    Goal(
        "less forgetting than SGD, AdamW, Muon and SAM at equal accuracy on the last task",
        OURS,
        PLAIN,
        FORGETTING,
        TWENTY,
        at_equal_last=True,
    ),
    Goal(
        "over replay at least 2 points of average accuracy above replay",
        "f3eo_memory",
        ("replay",),
        AVERAGE,
        least=2.0,
    ),
    Goal(
        "EWC with the exact diagonal better than with the batch-squared one",
        "ewc",
        ("ewc_batch",),
        AVERAGE,
    ),
    Goal(
        "zero-step accuracy on held-out rotations above every peer without memory",
        OURS,
        without_memory,
        ZERO_STEP,
        ("rotated-mnist",),
    ),
    *(
        Goal(
            f"{who} at least 40 % less forgetting from MNIST to Fashion-MNIST than SGD at equal "
            "accuracy on Fashion-MNIST",
            ours,
            ("sgd",),
            FORGETTING,
            ("mnist-fashion",),
            share=0.4,
            at_equal_last=True,
        )
        for ours, who in (
            (OURS, "F3EO alone"),
            ("f3eo_elastic", "F3EO with its squares as importance"),
            ("f3eo_stable_elastic", "the same within the recipe of Stable SGD"),
        )
    ),
)


def reached(study: StreamStudy, equal: str) -> list[Reached]:
    """Every goal at one budget."""
    return [
        _mean(study, goal, equal) if not goal.streams else _each(study, goal, equal)
        for goal in GOALS
    ]


def _each(study: StreamStudy, goal: Goal, equal: str) -> Reached:
    """A goal that is judged on each of its streams."""
    places = [place for s in goal.streams if (place := Place(s, equal)) in study.places]
    found = findings(study, places, [goal.quantity], goal.ours, goal.against, goal.at_equal_last)
    figures = []
    for at, finding in found.items():
        share = _share(study, goal, at.place, at.rival) if goal.share else None
        as_asked = None
        if finding.relation is not None:
            far = finding.difference.mean >= goal.least
            far = far and (share is not None and share >= goal.share if goal.share else True)
            as_asked = finding.relation == "better" and far
        bought = finding.bought and finding.difference.relation == "better"
        figures.append(
            Figure(at.place.stream, at.rival, finding.difference, share, as_asked, bought)
        )
    return Reached(goal, equal, figures, _missing(goal, figures))


def _mean(study: StreamStudy, goal: Goal, equal: str) -> Reached:
    """A goal that is judged in the mean over the streams scored by accuracy."""
    places = [
        place
        for place in study.places
        if place.equal == equal and measure_of(place.stream).larger_is_better
    ]
    several = [study.values(place, goal.quantity) for place in places]
    figures, missing = [], []
    for rival in (name for name in study.learners if goal.against(name)):
        if found := over_streams(several, goal.ours, rival):
            tested = found.relation is not None
            as_asked = found.relation == "better" and found.mean >= goal.least
            figures.append(Figure("", rival, found, None, as_asked if tested else None, False))
    if not figures:
        missing = ["no stream has both"]
    return Reached(goal, equal, figures, missing)


def _share(study: StreamStudy, goal: Goal, place: Place, rival: str) -> float | None:
    """By what share ours undercuts the rival's mean; None where that is not positive."""
    runs = study.values(place, goal.quantity).runs
    ours, other = (fmean(runs[learner].values()) for learner in (goal.ours, rival))
    return 1 - ours / other if other > 0 else None


def _missing(goal: Goal, figures: Sequence[Figure]) -> list[str]:
    """The streams and rivals without a comparison, in words."""
    here = {s: [f.rival for f in figures if f.stream == s] for s in goal.streams}
    sentences = []
    if absent := [stream for stream, rivals in here.items() if not rivals]:
        sentences.append(f"no comparison on {', '.join(absent)}")
    for stream, rivals in here.items():
        if rivals and not callable(goal.rivals):
            lacking = [label(rival) for rival in goal.rivals if rival not in rivals]
            if lacking:
                sentences.append(f"no {', '.join(lacking)} on {stream}")
    return sentences
