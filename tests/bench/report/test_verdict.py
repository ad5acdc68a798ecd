import pytest

from f3eo.bench.report.verdict import judge, names, relations, summary
from f3eo.bench.run.metrics import ACCURACY, CALIBRATION, TEST_LOSS
from f3eo.bench.statistics.frames import finals
from f3eo.bench.statistics.welch import Difference


@pytest.fixture
def frame(make_row):
    """F3EO clearly ahead, SGD and SAM level; the loss of a made-up row falls with its accuracy."""
    levels = {"sgd": 0.50, "sam": 0.501, "f3eo": 0.9}
    return finals(
        [
            make_row(level + 0.01 * seed, method=method, seed=seed)
            for method, level in levels.items()
            for seed in range(4)
        ]
    )


@pytest.mark.parametrize("metric", [ACCURACY, TEST_LOSS])
def test_the_best_leads_alone_and_the_level_ones_are_said_to_be_level(frame, metric):
    verdict = judge(frame, metric)
    assert verdict.order == ["f3eo", "sam", "sgd"] and verdict.leaders == {"f3eo"}
    assert verdict.relations["f3eo"] == {"better": ["sam", "sgd"], "worse": [], "level": []}
    assert verdict.relations["sgd"] == {"better": [], "worse": ["f3eo"], "level": ["sam"]}
    there, back = verdict.pairs["f3eo", "sgd"], verdict.pairs["sgd", "f3eo"]
    assert (there.mean, there.low, there.high) == (-back.mean, -back.high, -back.low)
    assert there.low < there.mean < there.high


def test_differences_are_in_the_unit_that_is_shown(frame):
    assert judge(frame, ACCURACY).pairs["f3eo", "sgd"].mean == pytest.approx(40)
    assert judge(frame, TEST_LOSS).pairs["f3eo", "sgd"].mean == pytest.approx(-0.4)


def test_leaders_hold_all_that_cannot_be_told_from_the_best(frame):
    two = frame.filter(frame["method"] != "f3eo")
    assert judge(two, ACCURACY).leaders == {"sam", "sgd"}


def test_the_summary_is_a_sentence(frame):
    assert summary(judge(frame, ACCURACY)) == (
        "F3EO has the highest mean test accuracy: it is better than SAM and SGD."
    )
    two = frame.filter(frame["method"] != "f3eo")
    assert summary(judge(two, TEST_LOSS)) == (
        "SAM has the lowest mean test loss: it is not distinguishable from SGD."
    )
    one = frame.filter(frame["method"] == "sgd")
    assert "nothing to compare it with" in summary(judge(one, ACCURACY))
    assert summary(judge(finals([]), ACCURACY)) == "No run finished."


def test_a_single_seed_leads_without_a_verdict(frame):
    verdict = judge(frame.filter(frame["seed"] == 0), ACCURACY)
    assert verdict.single == verdict.order == ["f3eo", "sam", "sgd"]
    assert verdict.leaders == {"f3eo"} and not verdict.pairs
    assert "single seed" in summary(verdict)


@pytest.mark.parametrize("larger", [True, False])
def test_relations_read_the_sign_and_the_direction(larger):
    pairs = [Difference("a", "b", 1.0, 0.5, 1.5, 0.01), Difference("a", "c", 1.0, -1.0, 3.0, 0.2)]
    good, bad = ("better", "worse") if larger else ("worse", "better")
    assert relations(pairs, "a", larger) == {good: ["b"], bad: [], "level": ["c"]}
    assert relations(pairs, "b", larger) == {good: [], bad: ["a"], "level": []}
    assert relations(pairs, "c", larger) == {good: [], bad: [], "level": ["a"]}


def test_what_a_row_does_not_have_is_not_judged(make_row):
    """Rows of an earlier version lack a measure, some of them or all."""
    rows = [make_row(0.5, method=m, seed=s) for m in ("sgd", "sam") for s in range(4)]
    for row in rows:
        row["final"]["calibration_error"] = 0.1 + 0.01 * row["seed"]
    del rows[0]["final"]["calibration_error"], rows[4]["final"]["calibration_error"]
    some = judge(finals(rows), CALIBRATION)
    assert set(some.order) == {"sgd", "sam"} and some.pairs["sgd", "sam"].mean == 0
    for row in rows:
        row["final"].pop("calibration_error", None)
    none = judge(finals(rows), CALIBRATION)
    assert none.order == [] and none.leaders == set()


def test_names_make_a_list_in_a_sentence():
    assert names(["sgd"]) == "SGD"
    assert names(["sgd", "sam", "f3eo"], 2) == "3 others"
    assert names(["sgd", "sam", "f3eo"]) == "SGD, SAM and F3EO"
