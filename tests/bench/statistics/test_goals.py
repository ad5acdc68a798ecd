import math

import pytest

from bench.synthetic import row
from f3eo.bench.run.metrics import ACCURACY, TEST_LOSS
from f3eo.bench.statistics.bootstrap import Range
from f3eo.bench.statistics.goals import (
    WINS,
    Level,
    bits_level,
    goals,
    rank_levels,
    records,
    score_levels,
)
from f3eo.bench.statistics.paired import Paired
from f3eo.bench.statistics.ranks import rank
from f3eo.bench.statistics.scores import scores

P = {"better": (1.0, 0.001), "ahead": (1.0, 0.5), "level": (-1.0, 0.5), "worse": (-1.0, 0.001)}


def pair(task, rival, word):
    mean, p = P.get(word, (1.0, math.nan))
    return (task, "f3eo", rival), Paired(task, "f3eo", rival, Range(mean, mean, mean, 10), p)


@pytest.fixture
def pairs():
    """Five tasks, on the last of which nothing is tested."""
    words = {
        "digits": ("better", "better", "better", "better", "better"),
        "mnist1d": ("better", "level", "worse", "ahead", "better"),
        "wine": ("better", "better", "better", "better", "worse"),
        "cifar": ("better", "better", "better", "level", "worse"),
        "few": ("none", "none", "none", "none", "none"),
    }
    rivals = ("sgd", "adamw", "muon", "sam", "asam")
    return dict(
        pair(t, *met) for t, found in words.items() for met in zip(rivals, found, strict=True)
    )


def test_claims_of_significance_are_counted_by_rival(pairs):
    found = {goal.rival: goal for goal in goals(pairs)}
    assert list(found) == list(WINS)
    assert found["sgd"].held == ["digits", "mnist1d", "wine", "cifar"] and found["sgd"].reached
    assert found["adamw"].held == ["digits", "wine", "cifar"]  # three of four are enough
    assert found["adamw"].missed == ["mnist1d"] and found["adamw"].reached
    assert found["sam"].held == ["digits", "wine"] and found["sam"].reached  # half is enough
    assert found["sam"].missed == ["mnist1d", "cifar"] and found["sam"].total == 4


def test_a_rival_that_is_better_once_refutes_the_claim(pairs):
    muon = goals(pairs)[1]
    assert (muon.rival, muon.worse, muon.reached) == ("muon", ["mnist1d"], False)
    assert len(muon.held) >= muon.wanted * muon.total


def test_too_few_wins_do_not_reach_a_goal_and_without_tests_nothing_is_judged(pairs):
    few = {key: found for key, found in pairs.items() if key[0] != "wine"}
    assert goals(few)[3].reached is False  # AdamW: two of three
    assert [goal.reached for goal in goals({})] == [None] * len(WINS)


def test_a_rank_must_be_low_and_the_first():
    first = rank({"a": {"f3eo": 3.0, "sgd": 2.0}, "b": {"f3eo": 3.0, "sgd": 2.0}})
    second = rank({"a": {"f3eo": 1.0, "sgd": 2.0}, "b": {"f3eo": 3.0, "sgd": 4.0}})
    by = {"score": first, "test loss": second, "calibration": rank({})}
    score, loss, calibration = rank_levels(by)
    assert (score.found, score.leader, score.reached) == (1.0, "f3eo", True)
    assert (loss.found, loss.leader, loss.reached) == (2.0, "sgd", False)  # low, not the first
    assert calibration.found is None and calibration.reached is None
    assert [level.limit for level in (score, loss, calibration)] == [3.0, 2.5, 2.5]
    assert not score._replace(found=3.5).reached


def test_scores_are_held_against_the_best_of_the_first_study():
    tasks = {
        "fashion-mlp": scores([row("fashion-mlp", "f3eo", 0, 85.7)], ACCURACY),
        "shakespeare-char": scores([row("shakespeare-char", "f3eo", 0, 30.0)], TEST_LOSS),
        "wine": scores([row("wine", "f3eo", 0, 99.0)], ACCURACY),
        "fashion-cnn": scores([row("fashion-cnn", "sgd", 0, 99.0)], ACCURACY),
    }
    cnn, flat, text = score_levels(tasks)
    assert flat.claim == "test accuracy (%) on fashion-mlp" and flat.reached
    assert flat.found == pytest.approx(85.7)
    assert text.found == pytest.approx(2.1) and text.reached is False  # a loss must be small
    assert cnn.reached is None  # without OURS


def test_few_bits_are_held_against_the_base_of_each_task():
    lost = {
        "digits": {"f3eo": 1.0, "muon": 3.0, "sgd": 100.0},
        "cifar": {"f3eo": 2.0, "sgd": 3.0, "muon": 100.0},
        "wine": {"muon": 50.0},
        "text": {"f3eo": 50.0, "sgd": 1.0},
    }
    bases = {"digits": "muon", "cifar": "sgd", "wine": "muon"}
    level = bits_level(lost, bases)
    assert level.found == pytest.approx(3 / 6) and level.reached
    assert bits_level(lost | {"cifar": {"f3eo": 2.1, "sgd": 3.0}}, bases).reached is False
    assert bits_level({"digits": {"f3eo": 1.0, "muon": -0.5}}, bases).found is None
    assert bits_level({}, {}).reached is None


def test_a_level_may_be_a_least_number():
    assert Level("x", 2.0, 2.0, larger_is_better=True).reached
    assert Level("x", 2.0, 1.9, larger_is_better=True).reached is False
    assert Level("x", 2.0, 2.1).reached is False


def test_records_count_wins_ties_and_losses(pairs):
    found = {record.rival: record for record in records(pairs)}
    assert found["sam"].better == ["digits", "wine"] and not found["sam"].worse
    assert found["sam"].level == ["mnist1d", "cifar"] and found["sam"].ahead == 3
    assert found["asam"].worse == ["wine", "cifar"] and found["asam"].ahead == 2
