import pytest

from f3eo.bench.statistics.frames import curves, finals
from f3eo.bench.statistics.student import interval


def test_finals_leave_out_what_did_not_finish(make_row):
    lost = make_row(seed=1) | {"status": "failed", "final": None, "curve": None}
    frame = finals([make_row(0.5), lost, make_row(0.7, method="sam")])
    assert frame["method"].to_list() == ["sgd", "sam"]
    assert frame["test_accuracy"].to_list() == [0.5, 0.7]
    assert finals([lost]).is_empty() and curves([lost]).is_empty()


def test_curves_hold_the_mean_and_the_interval_at_each_point(make_row):
    frame = curves([make_row(a, seed=s) for s, a in enumerate((0.2, 0.4, 0.6))])
    last = frame.filter(frame["point"] == 1).row(0, named=True)
    assert last["test_accuracy"] == pytest.approx(0.4)
    assert last["test_accuracy_half"] == pytest.approx(interval([0.2, 0.4, 0.6]).half)
    assert last["seconds"] == 2.0
