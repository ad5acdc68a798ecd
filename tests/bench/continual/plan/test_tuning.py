from math import log

import pytest

from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.plan.tuning import best, draw


def test_more_trials_extend_the_points_and_equal_spaces_share_them():
    first, *others = draw("permuted-mnist", PEERS["sgd"], 4)
    assert first == {name: PEERS["sgd"].defaults[name] for name in PEERS["sgd"].space}
    assert draw("permuted-mnist", PEERS["sgd"], 2) == [first, others[0]]
    assert draw("permuted-mnist", PEERS["replay"], 4)[1:] == others  # lr and momentum as SGD
    assert draw("rotated-mnist", PEERS["sgd"], 4)[1:] != others
    for name, peer in PEERS.items():  # every learner meets the same rates
        low, high = (log(getattr(peer.space["lr"], end)) for end in ("low", "high"))
        places = [(log(one["lr"]) - low) / (high - low) for one in draw("text", peer, 4)[1:]]
        if name == "sgd":
            first = places
        assert places == pytest.approx(first, abs=5e-3)
        assert len(set(places)) == 3
    for point in others:
        for name, range_ in PEERS["sgd"].space.items():
            assert 0.99 * range_.low <= point[name] <= 1.01 * range_.high


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
