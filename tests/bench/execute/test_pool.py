import os
import signal
from contextlib import closing
from multiprocessing import active_children
from types import SimpleNamespace

from f3eo.bench.execute import pool as module
from f3eo.bench.execute.pool import execute


def test_runs_are_carried_out_and_errors_become_rows(make_run):
    good = [make_run(seed=seed) for seed in range(2)]
    bad = make_run(options={"momentum": -1.0})
    lost = make_run(options={"lr": 1e30})
    updates = list(execute([*good, bad, lost], workers=2))
    rows = {update.row["key"]: update.row for update in updates if update.row}
    assert len(rows) == 4
    for run in good:
        row = rows[run.key]
        assert row["status"] == "finished" and row["error"] is None
        assert row["config"] == run.config and row["seed"] == run.seed
        assert {n: values[-1] for n, values in row["curve"].items()}.items() <= row["final"].items()
        assert row["machine"]["threads"] == 1
        assert row["versions"]["torch"] and row["machine"]["processor"]
    assert rows[bad.key]["status"] == "failed"
    assert rows[bad.key]["error"].startswith("ValueError: Invalid momentum value: -1.0")
    assert "Traceback" in rows[bad.key]["traceback"]
    assert rows[lost.key]["status"] == "diverged" and "was not finite" in rows[lost.key]["error"]
    shares = [update.share for update in updates if update.run == good[0]]
    assert shares == sorted(shares) and shares[0] == 0.0 and shares[-1] == 1.0
    assert len(shares) > 4


def test_a_worker_that_dies_gives_a_row_and_is_replaced(make_run):
    runs = [make_run(budget=200_000), make_run(seed=1)]
    rows = {}
    with closing(execute(runs, workers=1)) as updates:
        for update in updates:
            if update.row:
                rows[update.row["key"]] = update.row
            elif update.run == runs[0] and not rows:
                (worker,) = active_children()
                os.kill(worker.pid, signal.SIGKILL)
    assert rows[runs[0].key]["status"] == "failed"
    assert "exit code -9" in rows[runs[0].key]["error"]
    assert rows[runs[1].key]["status"] == "finished"


def test_closing_early_ends_the_workers(make_run):
    updates = execute([make_run(budget=200_000, seed=seed) for seed in range(2)], workers=2)
    next(updates), next(updates)
    assert len(active_children()) == 2
    updates.close()
    assert not active_children()


def test_after_the_deadline_no_run_is_begun_and_those_under_way_end(make_run, monkeypatch):
    looks = iter([0.0, 0.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(looks, 9.0)))
    runs = [make_run(seed=seed) for seed in range(50)]
    rows = [update.row for update in execute(runs, workers=1, deadline=9.0) if update.row]
    assert [(row["seed"], row["status"]) for row in rows] == [(0, "finished")]
    assert not list(execute(runs, workers=1, deadline=9.0))
