import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from f3eo import cli
from f3eo.bench.methods import METHODS

COMMAND = [sys.executable, "-m", "f3eo.cli", "compare"]
TINY = [
    "--tasks",
    "digits-mlp",
    "--methods",
    "sgd",
    "--seeds",
    "2",
    "--budget",
    "24",
    "--workers",
    "1",
]


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs the command line in this process; returns its exit code and what it wrote."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["f3eo", *map(str, words)])
        try:
            code = cli.main()
        except SystemExit as end:
            code = end.code
        streams = capsys.readouterr()
        return code, " ".join((streams.out + streams.err).split())

    return run


def rows_in(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_help_explains_every_option(typed):
    code, text = typed("compare", "--help")
    assert code == 0
    options = ("name", "tasks", "methods", "seeds", "budget", "equal", "set", "workers")
    options += ("device", "precision", "folder")
    for option in options:
        assert f"--{option} " in text
    for phrase in (
        "digits-mlp mnist1d-mlp",
        "sgd adamw muon sam f3eo",
        "Ctrl-C",
        "plain gradients",
    ):
        assert phrase in text


@pytest.mark.parametrize("command", ["bench", "compare", "cost", "methods", "report", "tune"])
def test_the_help_of_every_option_ends_with_its_default(monkeypatch, capsys, command):
    monkeypatch.setattr(sys, "argv", ["f3eo", command, "--help"])
    assert cli.main() == 0
    options = capsys.readouterr().out.partition("\n -")[2]
    entries = re.split(r"^  (?=-|PATH)", options, flags=re.MULTILINE)[1:]
    own = [entry for entry in entries if not entry.startswith("-h")]
    assert own and all("(default: " in entry for entry in own)


def test_all_methods_are_compared_at_equal_cost_and_at_equal_time(typed, tmp_path, monkeypatch):
    """In miniature: two methods make up the registry, one of which fails."""
    few = {name: METHODS[name] for name in ("sgd", "bsam")}
    monkeypatch.setattr("f3eo.cli.compare.METHODS", few)
    words = ["--task", "digits-mlp", "--methods", "all", "--seeds", "1", "--budget", "24"]
    code, text = typed("compare", *words, "--workers", "1", "--folder", tmp_path)
    assert code == 0 and "digits-mlp, ranks" in text and "digits-mlp, equal time" in text
    assert "digits-mlp, bsam: 2 failed: RuntimeError" in text
    rows = rows_in(tmp_path / "compare")
    assert {(row["method"], row["status"], "price" in row["config"]) for row in rows} == {
        ("sgd", "finished", False),
        ("sgd", "finished", True),
        ("bsam", "failed", False),
        ("bsam", "failed", True),
    }
    (timed,) = [r for r in rows if r["method"] == "sgd" and "price" in r["config"]]
    assert timed["steps"] == int(24 / timed["config"]["price"])
    assert "who comes where" in (tmp_path / "compare/report.html").read_text()


def test_the_commands_are_listed(typed):
    code, text = typed("--help")
    assert code == 0 and "compare" in text and "write a report" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--tasks", "nope"],
            "unknown task 'nope'; choose from digits-mlp, large-batch-digits, digits-few",
        ),
        (["--methods", "adamax"], "unknown method 'adamax'; choose from sgd"),
        (["--set", "sgd.lr"], "METHOD.OPTION=VALUE, e.g. sgd.lr=0.1, got 'sgd.lr'"),
        (["--set", "lr=1"], "METHOD.OPTION=VALUE, e.g. sgd.lr=0.1, got 'lr=1'"),
        (["--set", "sgd.lr=fast"], "sgd.lr takes a number, e.g. its default 0.3, got 'fast'"),
        (["--set", "sgd.rho=1"], "sgd has no option 'rho'; it has lr"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--device", "cuda:9"], "no device 'cuda:9' here; choose from auto, cpu"),
    ],
)
def test_bad_input_is_an_error_that_names_the_cure(typed, tmp_path, words, message):
    code, text = typed("compare", "--folder", tmp_path, *words)
    assert code == 2 and message in text
    assert not list(tmp_path.iterdir())


def test_a_comparison_from_the_command_line_to_the_report(typed, tmp_path):
    words = ["compare", *TINY, "--folder", tmp_path, "--name", "small", "--set", "sgd.lr=0.25"]
    code, text = typed(*words)
    assert code == 0 and "report.html" in text
    rows = rows_in(tmp_path / "small")
    assert [row["seed"] for row in rows] == [0, 1]
    assert {row["config"]["options"]["lr"] for row in rows} == {0.25}
    assert rows[0]["command"].startswith("f3eo compare --tasks digits-mlp --methods sgd")
    assert "f3eo compare --tasks digits-mlp" in (tmp_path / "small/report.html").read_text()
    code, text = typed(*words)
    assert code == 0 and "2 of 2 runs are done already" in text


def test_runs_of_another_precision_are_rows_of_their_own(typed, tmp_path):
    words = ["compare", *TINY, "--folder", tmp_path, "--name", "small"]
    assert typed(*words)[0] == 0
    code, text = typed(*words, "--precision", "bf16", "--device", "cpu")
    assert code == 0 and "2 row(s) of another configuration moved to" in text
    rows = rows_in(tmp_path / "small")
    assert [row["config"]["precision"] for row in rows] == ["bf16"] * 2
    assert "precision bf16" in (tmp_path / "small/report.html").read_text()
    code, text = typed(*words)
    assert code == 0 and "2 of 2 runs are done already" in text
    assert all("precision" not in row["config"] for row in rows_in(tmp_path / "small"))


def test_a_method_that_fails_is_a_row_and_not_a_crash(typed, tmp_path):
    words = ["--set", "sgd.momentum=-1", "--folder", tmp_path]
    code, text = typed("compare", *TINY, *words)
    assert code == 2 and "digits-mlp, sgd: 2 failed: ValueError: Invalid momentum value: -1" in text
    rows = rows_in(tmp_path / "compare")
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert "Invalid momentum value" in (tmp_path / "compare/report.html").read_text()


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path):
    words = [*TINY, "--seeds", "2000", "--folder", str(tmp_path), "--name", "cut"]
    process = subprocess.Popen(
        COMMAND + words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "400"},
        # Tests that a shell started in the background ignore Ctrl-C, and their children, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    results = tmp_path / "cut" / "results.jsonl"
    deadline = time.monotonic() + 180  # a loaded machine starts Python slowly
    while not (results.exists() and results.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    rows = rows_in(tmp_path / "cut")
    left = int(re.search(r"with (\d+) runs to go", output)[1])
    assert left + len(rows) == 2000
    assert "f3eo compare --tasks digits-mlp --methods sgd" in output
    assert (
        f"{len(rows)} of {len(rows)} runs finished" in results.with_name("report.html").read_text()
    )


def test_python_m_f3eo_is_f3eo_and_a_reader_may_leave_early():
    command = [sys.executable, "-m", "f3eo"]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "methods", "--methods", "sgd"], **pipe) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141
    assert said.count("\n") == 1 and "Standard output was closed" in said
    done = subprocess.run([*command, "--version"], **pipe)
    assert done.returncode == 0 and done.stdout.startswith("f3eo ") and not done.stderr
