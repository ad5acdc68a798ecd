import sys
from dataclasses import replace

import pytest

from bench.continual.blobs import BLOBS
from f3eo import cli
from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.plan.standings import table
from f3eo.bench.continual.streams import STREAMS


def test_the_table_lists_the_best_first_and_counts_lost_runs(blobs, console):
    def row(learner, seed, last, status="finished"):
        scores = [[0.0, 0.0], [0.9, 0.0], [last, 0.8]] if status == "finished" else []
        config = {"equal": "steps"}
        own = {"stream": "blobs", "learner": learner, "seed": seed, "kind": "result"}
        return own | {"status": status, "scores": scores, "config": config}

    rows = [row("sgd", 0, 0.4), row("sgd", 1, 0.6), row("replay", 0, 0.8)]
    rows.append(row("replay", 1, 0, "diverged"))
    console.print(table("blobs", "steps", ("sgd", "replay", "agem"), rows))
    lines = console.file.getvalue().splitlines()
    cells = [line.split() for line in lines if line.strip()][3:]
    assert cells[0] == ["replay", "80.00", "10.00", "80.00", "1", "1"]
    assert cells[1][:2] == ["SGD", "65.00"] and cells[1][-3:] == ["0.00", "2", "0"]
    assert cells[2] == ["A-GEM", "–", "–", "–", "0", "0"]


def test_errors_are_shown_as_they_are_and_differences_turned(console, monkeypatch):
    monkeypatch.setitem(STREAMS, "blobs", replace(BLOBS, metric="error"))
    scores = [[0.9, 0.9], [0.1, 0.9], [0.4, 0.2]]
    own = {"stream": "blobs", "learner": "sgd", "seed": 0, "kind": "result", "status": "finished"}
    rows = [own | {"scores": scores, "config": {"equal": "steps"}}]
    console.print(table("blobs", "steps", ("sgd",), rows))
    text = console.file.getvalue()
    assert "error, lower is better" in text
    assert text.splitlines()[-2].split() == ["SGD", "0.3000", "0.3000", "0.2000", "1", "0"]


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs the command line in this process; gives its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["f3eo", "stream", *map(str, words)])
        code = cli.main()
        return code, *capsys.readouterr()

    return run


def test_the_command_line_runs_a_study(blobs, typed, executed, tmp_path):
    words = ["blobs", "--learners", "sgd", "--trials", "1", "--seeds", "2", "--equal", "steps"]
    words += ["--samples", "30", "--tests", "20", "--stages", "2"]
    words += ["--folder", tmp_path, "--name", "s"]
    code, out, error = typed(*words)
    assert code == 0 and not error
    assert "blobs, equal steps (%)" in out and "forgetting" in out and str(tmp_path / "s") in out
    assert {(run.stages, run.samples, run.tests) for run in executed[0]} == {(2, 30, 20)}
    executed[1]["after"] = len(executed[0])
    words[words.index("--seeds") + 1] = "3"
    code, out, _ = typed(*words)
    assert code == 130 and "Interrupted with 1 runs to go" in out


def test_a_wrong_name_is_one_line_on_stderr(blobs, typed, tmp_path):
    code, _, error = typed("mnist", "--folder", tmp_path)
    assert code == 2 and error.count("\n") == 1
    assert "unknown stream 'mnist'; choose from permuted-mnist" in error


def test_failures_are_told_by_stream_and_learner(blobs, typed, executed, monkeypatch, tmp_path):
    def build(model, options, seed):
        raise ValueError("broken")

    monkeypatch.setitem(PEERS, "sgd", replace(PEERS["sgd"], build=build))
    code, out, error = typed(
        *("blobs", "--learners", "sgd", "--trials", "1", "--seeds", "1", "--equal", "steps"),
        *("--folder", tmp_path),
    )
    assert "blobs, sgd: 2 failed: ValueError: broken" in out
    assert code == 2 and "every run failed" in error
