import warnings

from f3eo.bench.run import row as module
from f3eo.bench.run.row import failed, record


def test_warnings_go_into_the_row_and_not_to_the_terminal(make_run, monkeypatch):
    train = module.train

    def warning(*arguments):
        for _ in range(3):
            warnings.warn("mind the step", UserWarning, stacklevel=1)
        return train(*arguments)

    monkeypatch.setattr(module, "train", warning)
    assert record(make_run())["warnings"] == ["mind the step"]


def test_every_kind_of_row_has_the_same_entries(make_run, make_row):
    rows = [
        record(make_run()),
        record(make_run(options={"lr": 1e30})),
        record(make_run(options={"momentum": -1})),
        failed(make_run(), "it died"),
    ]
    assert [row["status"] for row in rows] == ["finished", "diverged", "failed", "failed"]
    for row in rows:
        assert set(row) == set(make_row()) - {"command"}
        assert (row["error"] is None) == (row["status"] == "finished") == bool(row["final"])
