from collections import Counter
from itertools import combinations
from math import log

import pytest

from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.plan.tuning import SAME, best, draw


def place(range_, value):
    """How far along its range a value lies, in [0, 1]."""
    if range_.log:
        return log(value / range_.low) / log(range_.high / range_.low)
    return (value - range_.low) / (range_.high - range_.low)


def test_more_trials_extend_the_points_which_lie_in_their_ranges():
    first, *others = draw("permuted-mnist", PEERS["sgd"], 4)
    assert first == {name: PEERS["sgd"].defaults[name] for name in PEERS["sgd"].space}
    assert draw("permuted-mnist", PEERS["sgd"], 2) == [first, others[0]]
    assert draw("permuted-mnist", PEERS["replay"], 4)[1:] == others  # lr and momentum as SGD
    assert draw("rotated-mnist", PEERS["sgd"], 4)[1:] != others
    for peer in PEERS.values():
        for point in draw("text", peer, 6)[1:]:
            assert all(-0.01 < place(r, point[name]) < 1.01 for name, r in peer.space.items())


def test_learners_meet_the_same_values_of_an_option():
    found = {}
    for peer in PEERS.values():
        for name, range_ in peer.space.items():
            values = [place(range_, one[name]) for one in draw("text", peer, 6)[1:]]
            found.setdefault(SAME.get(name, name), []).append(values)
    assert len(found["lr"]) == len(PEERS) and len(found["strength"]) == 7
    for shared in found.values():
        for values in shared:
            assert values == pytest.approx(shared[0], abs=0.02) and len(set(values)) == 5


def test_options_are_drawn_independently_of_each_other():
    """Of 64 points of Sobol's sequence as many lie in each quarter of two options, to within a few.

    Two sequences of one dimension would lie in two of the quarters alone.
    """
    points = draw("text", PEERS["f3eo_stable"], 65)[1:]
    space = PEERS["f3eo_stable"].space
    upper = {n: [place(r, one[n]) > 0.5 for one in points] for n, r in space.items()}
    for first, second in combinations(upper, 2):
        quarters = Counter(zip(upper[first], upper[second], strict=True))
        assert len(quarters) == 4 and min(quarters.values()) >= 12


def trial(lr, scores, status="finished", loss=1.0):
    config = {"options": {"lr": lr}}
    losses = [[loss] * len(row) for row in scores]
    return {"config": config, "scores": scores, "losses": losses, "status": status}


def test_the_best_average_is_chosen_ties_by_the_loss_and_lost_settings_never():
    low, high = [[0.0, 0.0], [0.9, 0.0], [0.3, 0.9]], [[0.0, 0.0], [0.7, 0.0], [0.7, 0.7]]
    rows = [trial(1, low), trial(2, high), trial(3, [[0.0, 0.0]], "diverged")]
    assert best(rows, "accuracy").options == {"lr": 2}
    assert best(rows, "error").options == {"lr": 1}  # lower is better
    assert best([*rows, trial(4, high, loss=0.5)], "accuracy").options == {"lr": 4}
    assert best([*rows, trial(2, high, "failed")], "accuracy").options == {"lr": 1}
    assert best(rows[2:], "accuracy") is None
