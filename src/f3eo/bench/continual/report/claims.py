"""The claims of the source document's last paragraph, each with a verdict that a rule computes."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from f3eo.bench.continual.report.findings import Findings, findings
from f3eo.bench.continual.report.names import OURS, is_ours, kind
from f3eo.bench.continual.report.quantities import (
    AVERAGE,
    FORGETTING,
    RELATIVE,
    TRACE,
    ZERO_STEP,
    Quantity,
)
from f3eo.bench.continual.report.study import StreamStudy
from f3eo.bench.statistics.significance import Relation

SOURCE = (
    "F3EO no longer adapts passively to a fixed loss landscape; it actively seeks and moves to a "
    "region of the landscape that is common to, and optimal over, the whole distribution of tasks. "
    "This is the ground for zero-step adaptation and for resisting catastrophic forgetting."
)
"""The last paragraph of the source document, translated."""

RULE = (
    "A claim holds if F3EO is significantly better than every peer named, on every stream and at "
    "every budget of the study. It holds in part if F3EO is better in some of these comparisons "
    "and significantly worse in none. Otherwise it does not hold here. All comparisons of a claim "
    "are one family of paired t-tests with Holm's correction."
)

Verdict = Literal["holds", "holds in part", "does not hold here"]


class Claim(NamedTuple):
    """A claim, and how it is measured.

    Attributes:
        name: a word for it.
        says: the claim as a sentence.
        measured: what is measured, and against whom.
        quantities: what is compared.
        rivals: learner -> whether it is one of the peers named.
        at_equal_last: whether being better asks for an equal score on the last task.
    """

    name: str
    says: str
    measured: str
    quantities: Sequence[Quantity]
    rivals: Callable[[str], bool]
    at_equal_last: bool = False


class Judged(NamedTuple):
    """A claim with what was found.

    Attributes:
        claim: the claim.
        found: the comparisons of OURS, one family.
    """

    claim: Claim
    found: Findings

    @property
    def relations(self) -> list[Relation]:
        """The outcomes of the comparisons that could be tested."""
        found = self.found.values()
        return [relation for finding in found if (relation := finding.relation) is not None]

    @property
    def verdict(self) -> Verdict | None:
        """The verdict by RULE; None if nothing could be tested."""
        return judge(self.relations)

    def count(self, relation: Relation) -> int:
        """The number of comparisons with this outcome."""
        return self.relations.count(relation)


def judge(relations: Sequence[Relation]) -> Verdict | None:
    """The verdict on comparisons, by RULE; None for none."""
    if not relations:
        return None
    if set(relations) == {"better"}:
        return "holds"
    if "better" in relations and "worse" not in relations:
        return "holds in part"
    return "does not hold here"


PLAIN = ("sgd", "adamw", "muon", "sam")
"""The peers that do nothing about earlier tasks."""


def _is_plain(learner: str) -> bool:
    return learner in PLAIN


def without_memory(learner: str) -> bool:
    """Whether a learner is a peer of F3EO that keeps no samples."""
    return kind(learner) != "memory" and not is_ours(learner)


CLAIMS: Sequence[Claim] = (
    Claim(
        "seeks",
        "It does not adapt passively: it actively seeks and moves to a region of the landscape.",
        "Tr F and the scale-free trace Tr(D F D) on training samples of all stages, after the "
        "last one, below those of SGD, AdamW, Muon and SAM.",
        (TRACE, RELATIVE),
        _is_plain,
    ),
    Claim(
        "common",
        "That region is common to, and optimal over, the whole distribution of tasks.",
        "Average score over all stages after the last one, above that of SGD, AdamW, Muon and "
        "SAM, at an equal score on the last task.",
        (AVERAGE,),
        _is_plain,
        at_equal_last=True,
    ),
    Claim(
        "zero-step",
        "It is the ground for zero-step adaptation.",
        "Score on unseen tasks of the family before a single step on them, after the last stage, "
        "above that of every peer without memory. Streams without unseen tasks do not count.",
        (ZERO_STEP,),
        without_memory,
    ),
    Claim(
        "forgetting",
        "It is the ground for resisting catastrophic forgetting.",
        "Forgetting below that of SGD, AdamW, Muon and SAM, at an equal score on the last task.",
        (FORGETTING,),
        _is_plain,
        at_equal_last=True,
    ),
)


def judged(study: StreamStudy) -> list[Judged]:
    """Every claim with its comparisons."""
    return [
        Judged(c, findings(study, study.places, c.quantities, OURS, c.rivals, c.at_equal_last))
        for c in CLAIMS
    ]
