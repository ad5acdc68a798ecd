import math

import pytest

from bench.synthetic import row
from f3eo.bench.run.metrics import ACCURACY
from f3eo.bench.statistics.bootstrap import Range
from f3eo.bench.statistics.goals import best_peer, goals, records
from f3eo.bench.statistics.paired import Paired
from f3eo.bench.statistics.scores import scores

P = {"better": (1.0, 0.001), "ahead": (1.0, 0.5), "level": (-1.0, 0.5), "worse": (-1.0, 0.001)}


def pair(task, rival, word):
    mean, p = P.get(word, (1.0, math.nan))
    return (task, "f3eo", rival), Paired(task, "f3eo", rival, Range(mean, mean, mean, 10), p)


@pytest.fixture
def study():
    """Five tasks; SAM is the best peer but on wine, where it is ASAM."""
    words = {
        "digits": ("better", "better", "better", "better", "better"),
        "mnist1d": ("better", "level", "worse", "ahead", "better"),
        "wine": ("better", "better", "better", "better", "worse"),
        "cifar": ("better", "better", "better", "level", "worse"),
        "few": ("none", "none", "none", "none", "none"),
    }
    rivals = ("sgd", "adamw", "muon", "sam", "asam")
    pairs = dict(
        pair(t, *met) for t, found in words.items() for met in zip(rivals, found, strict=True)
    )
    levels = {"sam": 92.0, "asam": 91.0, "sgd": 99.0}
    tasks = {
        task: scores([row(task, m, 0, level) for m, level in levels.items()], ACCURACY)
        for task in words
    }
    tasks["wine"] = scores([row("wine", "sam", 0, 80.0), row("wine", "asam", 0, 81.0)], ACCURACY)
    return pairs, tasks


def test_goals_are_counted_from_the_pairs(study):
    classics, peer, sam = goals(*study)
    assert classics.held == ["digits", "wine", "cifar"]
    assert classics.missed == {"mnist1d": ["adamw", "muon"]}
    assert classics.total == 4 and classics.reached is False  # 3 of 4 is less than 0.8
    assert peer.held == ["digits", "mnist1d", "cifar"] and peer.missed == {"wine": ["asam"]}
    assert peer.reached is False
    assert sam.held == ["digits", "wine"] and sam.missed == {"mnist1d": ["sam"], "cifar": ["sam"]}
    assert sam.reached is True


def test_a_task_is_not_judged_before_all_rivals_are_there(study):
    pairs, tasks = study
    some = {key: found for key, found in pairs.items() if key != ("digits", "f3eo", "muon")}
    assert goals(some, tasks)[0].total == 3
    assert goals({}, tasks)[0].reached is None and goals({}, {})[1].total == 0


def test_the_best_peer_is_sharpness_aware(study):
    assert best_peer(study[1]["digits"]) == "sam" and best_peer(study[1]["wine"]) == "asam"
    assert best_peer(scores([row("wine", "sgd", 0, 90.0)], ACCURACY)) is None


def test_records_count_wins_ties_and_losses(study):
    found = {record.rival: record for record in records(study[0])}
    assert found["sam"].better == ["digits", "wine"] and not found["sam"].worse
    assert found["sam"].level == ["mnist1d", "cifar"] and found["sam"].ahead == 3
    assert found["asam"].worse == ["wine", "cifar"] and found["asam"].ahead == 2
