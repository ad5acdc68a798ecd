"""Paired differences, and the verdicts on claims that are computed from them."""

import math
from statistics import fmean, stdev

import pytest
from scipy import stats

from bench.continual.report.made_up import row
from f3eo.bench.continual.report.claims import CLAIMS, PLAIN, judge, judged, without_memory
from f3eo.bench.continual.report.differences import compare, corrected, difference, not_worse
from f3eo.bench.continual.report.facts import comparisons, found
from f3eo.bench.continual.report.findings import findings, over_streams
from f3eo.bench.continual.report.measure import MEASURES
from f3eo.bench.continual.report.quantities import AVERAGE, FORGETTING, LAST
from f3eo.bench.continual.report.study import Place, StreamStudy
from f3eo.bench.continual.report.values import values

STEPS = Place("permuted-mnist", "steps")
JITTER = (-0.002, 0.001, 0.0, 0.003, -0.001)
OTHER = (0.001, 0.002, -0.003, 0.0, 0.002)


def runs(learner, learnt=0.9, lost=0.02, stream="permuted-mnist", equal="steps", seeds=5):
    jitter = JITTER if learner.startswith("f3eo") else OTHER
    return [
        row(stream, learner, seed, equal, learnt=learnt + jitter[seed], lost=lost)
        for seed in range(seeds)
    ]


def study(*groups):
    return StreamStudy("made-up", [made for group in groups for made in group])


def verdicts(made):
    return {claim.claim.name: claim.verdict for claim in judged(made)}


def test_a_difference_by_hand():
    gains = [1.0, 2.0, 3.0, 4.0, 6.0]
    found = difference(gains)
    half = stats.t.ppf(0.975, 4) * stdev(gains) / 5**0.5
    assert found[:4] == pytest.approx((3.2, 3.2 - half, 3.2 + half, 5))
    assert found.p == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)
    assert found.relation == "better"
    assert difference([-g for g in gains]).relation == "worse"
    assert difference([1.0, -1.0, 2.0, -2.0, 0.5]).relation == "level"


def test_too_few_seeds_give_no_verdict():
    assert difference([]) is None
    assert difference([1.0, 1.1, 1.2, 1.3]).relation is None
    assert math.isnan(difference([1.0]).low)


def test_seeds_are_paired_and_forgetting_less_is_better():
    rows = [*runs("f3eo", lost=0.01), *runs("sgd", lost=0.02, seeds=3)]
    found = compare(values(rows, FORGETTING, MEASURES["accuracy"]), "f3eo", "sgd")
    # per later stage one point less, over 4, 3, 2 and 1 later stages
    assert (found.n, found.mean) == (3, pytest.approx(2.5))


def test_holm_is_over_the_family_that_is_tested():
    family = {
        name: difference(gains)._replace(p=p)
        for name, gains, p in (("a", [1.0] * 5, 0.01), ("b", [1.0] * 5, 0.04), ("c", [1.0], 0.03))
    }
    family["d"] = family["a"]._replace(p=math.nan)
    found = corrected(family)
    assert [found[name].p for name in "abc"] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(found["d"].p)


def test_an_equal_last_task_is_shown_by_the_interval_and_not_assumed():
    def kept(learnt, seeds=5):
        rows = [*runs("f3eo", learnt=learnt, seeds=seeds), *runs("sgd", learnt=0.9, seeds=seeds)]
        return not_worse(values(rows, LAST, MEASURES["accuracy"]), "f3eo", "sgd")

    assert kept(0.9) is True  # −0.02 ± 0.4 points
    assert kept(0.85) is False
    assert kept(0.893) is False  # −0.7 ± 0.4: its interval reaches below −1
    assert kept(0.893, seeds=2) is False  # few seeds show nothing
    assert kept(0.9, seeds=1) is None


def test_the_margin_of_an_error_is_a_share_of_it():
    def kept(f3eo):
        rows = [row("sinusoid", "f3eo", s, learnt=f3eo + JITTER[s] / 100) for s in range(5)]
        rows += [row("sinusoid", "sgd", s, learnt=0.2 + OTHER[s] / 100) for s in range(5)]
        return not_worse(values(rows, LAST, MEASURES["error"]), "f3eo", "sgd")

    assert kept(0.209) is True  # 4.5 % more
    assert kept(0.211) is False


def test_the_rule_of_the_verdict():
    assert judge(["better", "better"]) == "holds"
    assert judge(["better", "level"]) == "holds in part"
    assert judge(["better", "level", "worse"]) == "does not hold here"
    assert judge(["level"]) == judge(["worse"]) == "does not hold here"
    assert judge([]) is None


def test_all_three_verdicts_from_rows():
    worse = [runs(rival, lost=0.03) for rival in PLAIN]
    assert verdicts(study(runs("f3eo", lost=0.01), *worse)) == {
        "seeks": "holds", "common": "holds", "zero-step": "holds", "forgetting": "holds",
    }  # fmt: skip
    level = [runs(rival, lost=0.03) for rival in PLAIN[1:]] + [runs("sgd", lost=0.01)]
    assert verdicts(study(runs("f3eo", lost=0.01), *level)) == {
        "seeks": "holds in part", "common": "holds in part", "zero-step": "holds in part",
        "forgetting": "holds in part",
    }  # fmt: skip
    better = [runs(rival, lost=0.03) for rival in PLAIN[1:]] + [runs("sgd", lost=0.002)]
    assert set(verdicts(study(runs("f3eo", lost=0.01), *better)).values()) == {"does not hold here"}


def test_every_stream_and_budget_counts():
    steps = [runs("f3eo", lost=0.01), *(runs(rival, lost=0.03) for rival in PLAIN)]
    time = [
        runs("f3eo", lost=0.03, equal="time"),
        *(runs(rival, lost=0.03, equal="time") for rival in PLAIN),
    ]
    forgetting = {c.claim.name: c for c in judged(study(*steps, *time))}["forgetting"]
    assert forgetting.verdict == "holds in part"
    assert found(forgetting) == "better in 4 of 8 comparisons, level in 4, worse in 0"


def test_forgetting_less_is_no_merit_where_less_was_learnt():
    made = study(runs("f3eo", learnt=0.8, lost=0.0), *(runs(rival, lost=0.03) for rival in PLAIN))
    claims = {c.claim.name: c for c in judged(made)}
    assert claims["forgetting"].verdict == "does not hold here"
    assert claims["forgetting"].count("level") == 4
    (table,) = comparisons(claims["forgetting"]).values()
    (cells,) = table.lines.values()
    # 3 points by each of 4, 3, 2 and 1 later stages, over four of them
    assert [(cell.text, cell.mark) for cell in cells] == [("+7.50*", None)] * 4
    assert claims["seeks"].verdict == "holds"


def test_zero_step_is_held_against_every_peer_without_memory_only():
    made = study(runs("f3eo", lost=0.01), runs("ewc", lost=0.03), runs("replay", lost=0.0))
    zero = {c.claim.name: c for c in judged(made)}["zero-step"]
    assert {at.rival for at in zero.found} == {"ewc"}
    assert zero.verdict == "holds"
    assert without_memory("si") and not without_memory("agem")
    assert not any(without_memory(name) for name in ("f3eo_stable", "f3eo_memory"))


def test_streams_without_unseen_tasks_do_not_count_for_zero_step():
    rows = [*runs("f3eo"), *runs("sgd")]
    made = StreamStudy("made-up", [made | {"unseen": []} for made in rows])
    assert verdicts(made)["zero-step"] is None


def test_few_seeds_and_no_f3eo_judge_nothing():
    few = study(runs("f3eo", seeds=4), *(runs(rival, seeds=4) for rival in PLAIN))
    assert set(verdicts(few).values()) == {None}
    assert set(verdicts(study(*(runs(rival) for rival in PLAIN))).values()) == {None}


def test_a_claim_is_one_family_of_tests():
    made = study(runs("f3eo", lost=0.018), *(runs(rival, lost=0.02) for rival in PLAIN))
    (seeks,) = (c for c in judged(made) if c.claim.name == "seeks")
    assert len(seeks.found) == len(CLAIMS[0].quantities) * len(PLAIN) == 8
    one = findings(made, [STEPS], [AVERAGE], "f3eo", lambda name: name == "sgd")
    four = findings(made, [STEPS], [AVERAGE], "f3eo", lambda name: name in PLAIN)
    (alone,) = one.values()
    assert alone.difference.p < 0.25
    assert [f.difference.p for f in four.values()] == pytest.approx([4 * alone.difference.p] * 4)


def test_the_mean_over_streams_is_paired_by_seed():
    rows = {
        "permuted-mnist": [*runs("f3eo", 0.9), *runs("sgd", 0.8)],
        "rotated-mnist": [*runs("f3eo", 0.9), *runs("sgd", 0.85, seeds=4)],
        "mnist-fashion": runs("f3eo"),
    }
    several = [values(own, AVERAGE, MEASURES["accuracy"]) for own in rows.values()]
    found = over_streams(several, "f3eo", "sgd")
    gains = [100 * (JITTER[s] - OTHER[s]) + (10 + 5) / 2 for s in range(4)]
    assert (found.n, found.mean) == (4, pytest.approx(fmean(gains)))
    assert over_streams(several, "f3eo", "sam") is None
