import json
from dataclasses import replace

import pytest

from bench.continual.blobs import made
from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.plan.carry import STREAM_RUNS
from f3eo.bench.continual.run.row import ENTRIES, failed, record, restore
from f3eo.bench.continual.run.stream_run import StreamRun
from f3eo.bench.execute import archive
from f3eo.bench.execute.pool import execute


@pytest.fixture
def row(blobs):
    return record(made())


def test_a_row_has_every_entry_and_comes_back_from_json_and_parquet(row, tmp_path):
    assert set(ENTRIES) <= set(row) and row["status"] == "finished"
    assert row["key"] == made().key and row["config"] == made().config
    assert row["machine"]["threads"] and row["versions"]["torch"]
    stored = json.loads(json.dumps(row, allow_nan=False))
    assert restore(stored) == row
    lost = failed(made(seed=1), "KeyError: x")
    archive.write([row, lost], tmp_path / "rows.parquet")
    assert archive.read(tmp_path / "rows.parquet", restore) == [row, lost]


def test_an_error_gives_a_row_with_its_traceback(blobs, monkeypatch):
    def build(model, options, seed):
        raise KeyError("momentum")

    monkeypatch.setitem(PEERS, "sgd", replace(PEERS["sgd"], build=build))
    row = record(made())
    assert row["status"] == "failed" and row["error"] == "KeyError: 'momentum'"
    assert "Traceback" in row["traceback"] and restore(row) == row


@pytest.mark.parametrize("learner", PEERS)
def test_every_learner_finishes_a_small_run(blobs, learner):
    row = record(made(learner, stages=2))
    assert row["status"] == "finished", row["traceback"] or row["error"]


def test_a_run_that_diverges_gives_a_row_with_its_scores_so_far(blobs):
    row = record(made(options={"lr": 3e38}))
    assert row["status"] == "diverged" and "in stage 1 of 3" in row["error"]
    assert len(row["scores"]) == 1 and row["steps"] == [] and restore(row) == row


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": 1}, "key is missing or of another type"),
        ({"scores": [[0.5] * 3] * 3}, "finished with 3 lists of scores, not 4"),
        ({"losses": [[0.5] * 2] * 4}, "losses are not of 3 stages"),
        ({"status": "done"}, "status or kind is unknown: 'done'"),
        ({"kind": "test"}, "status or kind is unknown: 'finished', 'test'"),
        ({"config": {"stages": 3, "options": {}}}, "equal is unknown"),
        ({"structure": {}}, "structure lacks trace of 3 stages"),
    ],
)
def test_what_is_no_row_is_refused(row, changes, message):
    with pytest.raises(ValueError, match=message):
        restore(row | changes)
    with pytest.raises(ValueError, match="received a list"):
        restore([row])


def test_every_part_of_a_run_is_in_its_key():
    usual = made()
    others = {
        "stream": "x", "learner": "x", "seed": 1, "options": {}, "stages": 2, "batch": 9,
        "epochs": 2, "samples": 5, "kind": "trial", "price": 1.0,
        "tests": 5,
    }  # fmt: skip
    assert set(others) == set(StreamRun.__dataclass_fields__)
    keys = [replace(usual, **{name: value}).key for name, value in others.items()]
    assert len({usual.key, *keys}) == 1 + len(others) and made().key == usual.key


def test_a_worker_process_gives_the_same_row():
    run = made(stream="sinusoid", stages=2, samples=40)
    updates = list(execute([run], workers=1, kind=STREAM_RUNS))
    (row,) = [update.row for update in updates if update.row]
    here = record(run)
    assert row["status"] == "finished"
    for name in ("key", "config", "scores", "losses", "structure", "unseen", "steps"):
        assert row[name] == here[name]
