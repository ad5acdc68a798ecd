import pytest

from f3eo.bench.plan import choice
from f3eo.bench.tasks import TASKS


@pytest.fixture
def row(make_row):
    def make(lr, accuracy, loss, status="finished"):
        made = make_row(accuracy, options={"lr": lr})
        made["final"] = made["final"] | {"test_loss": loss} if status == "finished" else None
        return made | {"status": status}

    return make


@pytest.fixture
def rows(row):
    return [
        row(0.1, 0.8, 0.1),
        row(0.2, 0.9, 0.9),
        row(0.3, 0.9, 0.5),
        row(0.4, 1.0, 0.0, "diverged"),
        row(0.5, 1.0, 0.0, "failed"),
    ]


def test_the_best_is_the_most_accurate_the_loss_decides_between_equals(rows):
    found = choice.best("digits-mlp", rows)
    assert (found.options["lr"], *found[1:]) == (0.3, 0.9, 0.5)
    assert choice.best("digits-mlp", rows[3:]) is None


def test_where_the_loss_is_the_score_it_decides(rows, monkeypatch):
    scored = type("Scored", (), {"score": "loss"})
    monkeypatch.setattr(choice, "TASKS", {"by-loss": scored})
    assert choice.best("by-loss", rows).options["lr"] == 0.1
    assert {task.score for task in TASKS.values()} <= {"accuracy", "loss"}


def test_settings_are_judged_by_the_mean_over_splits_and_lost_with_one_of_them(row):
    rows = [row(0.1, 0.9, 1.0), row(0.2, 0.8, 1.0), row(0.3, 1.0, 1.0)]
    rows += [row(0.1, 0.7, 2.0), row(0.2, 0.9, 1.0), row(0.3, 1.0, 1.0, "diverged")]
    found = choice.best("wine", rows)
    assert found.options["lr"] == 0.2
    assert (found.accuracy, found.loss) == pytest.approx((0.85, 1.0))
