"""However a command ends: one line on stderr, an exit code, and nothing lost; never a traceback."""

import errno
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from f3eo import cli
from f3eo.bench.execute import disk, resume
from f3eo.bench.execute.pool import Update
from f3eo.bench.execute.store import Store
from f3eo.bench.run.row import failed

WORDS = ("compare", "--task", "wine", "--methods", "sgd", "--seeds", "1", "--name", "c")


@pytest.fixture
def typed(monkeypatch, capsys):
    """Runs the command line in this process; gives its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["f3eo", *map(str, words)])
        code = cli.main()
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def trained(monkeypatch, make_row):
    """Every run gives a made-up row; those whose method is in the set that this gives fail."""
    broken = set()

    def execute(runs, workers, deadline, keep=None, kind=None):
        for run in runs:
            names = ("key", "task", "method", "variant", "seed", "config")
            row = make_row(0.5) | {name: getattr(run, name) for name in names}
            lost = failed(run, "FileNotFoundError: no data") | {"warnings": []}
            yield Update(0, run, 1.0, lost if run.method in broken else row)

    monkeypatch.setattr(resume, "execute", execute)
    monkeypatch.setattr("f3eo.bench.plan.compare.write_report", lambda rows, path, title: None)
    monkeypatch.setattr("f3eo.bench.plan.stages.prices", lambda runs, path, tell: dict.fromkeys(
        map(work, runs), 1.0))  # fmt: skip
    return broken


def work(run):
    from f3eo.bench.price.prices import step_kind

    return step_kind(run)


def one_line(text, *parts):
    assert text.count("\n") == 1 and "Traceback" not in text, text
    for part in parts:
        assert str(part) in text


def bench(tmp_path, *words):
    usual = ("--methods", "sgd", "--trials", 1, "--seeds", 1, "--only", "results")
    return "bench", "--task", "wine", *usual, "--name", "b", "--folder", tmp_path, *words


@pytest.mark.parametrize("command", [WORDS, ("tune", "--task", "wine", "--methods", "sgd")])
def test_a_file_where_a_folder_is_wanted(typed, trained, tmp_path, command):
    place = tmp_path / "file"
    place.write_text("mine")
    code, _, error = typed(*command, "--folder", place)
    assert code == 2 and place.read_text() == "mine"
    one_line(error, "Error: ", place, "a file is where a folder must be: name another")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder nobody can write to")
def test_a_folder_that_cannot_be_written(typed, trained):
    code, _, error = typed(*WORDS, "--folder", "/proc/self/fd")
    assert code == 2
    one_line(error, "/proc/self/fd/c", "name another place")


@pytest.mark.parametrize("how", ["methods", "cost"])
def test_a_file_that_cannot_be_written_is_found_before_anything_is_measured(
    typed, tmp_path, monkeypatch, how
):
    monkeypatch.setattr("f3eo.cli.methods.catalogue", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr("f3eo.cli.cost.measure_cost", lambda *_: pytest.fail("measured"))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(disk, "_write_all", lambda *_: (_ for _ in ()).throw(full))
    code, _, error = typed(how, "--json", tmp_path / "out.json")
    assert code == 2 and not list(tmp_path.iterdir())
    one_line(error, tmp_path, "No space left on device; make room there")


def test_what_was_measured_is_shown_where_it_cannot_be_written(typed, tmp_path, monkeypatch):
    def lost(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "there")

    monkeypatch.setattr("f3eo.cli.methods.write", lost)
    code, out, error = typed("methods", "--methods", "sgd", "--json", tmp_path / "out.json")
    assert code == 2 and "torch.optim.SGD" in out
    one_line(error, "there", "check the disk")


def test_a_disk_that_fills_up_keeps_the_rows_before(typed, trained, tmp_path, monkeypatch):
    append, appended = disk.append, []

    def filling(path, line):
        if appended:
            with disk.named(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        appended.append(line)
        append(path, line)

    monkeypatch.setattr(disk, "append", filling)
    words = (*WORDS, "--seeds", 3, "--folder", tmp_path)
    code, _, error = typed(*words)
    path = tmp_path / "c/results.jsonl"
    assert code == 2 and path.read_bytes() == appended[0]
    one_line(error, path, "No space left", "give the same command again")
    monkeypatch.undo()


@pytest.mark.parametrize("methods", ["sgd", "sgd adamw"])
@pytest.mark.parametrize("how", ["compare", "bench", "tune"])
def test_where_every_run_failed_the_code_says_so(typed, trained, tmp_path, how, methods):
    trained.add("sgd")
    words = {
        "compare": (*WORDS, "--folder", tmp_path),
        "bench": bench(tmp_path),
        "tune": ("tune", "--task", "wine", "--trials", 1, "--folder", tmp_path),
    }[how]
    code, out, error = typed(*words, "--methods", *methods.split())
    assert "wine, sgd: " in out and "failed: FileNotFoundError: no data" in out
    if methods == "sgd":
        assert code == 2
        one_line(error, "Error: every run failed: FileNotFoundError: no data")
    else:
        assert code == 0 and not error


JUNK = b'{"key": "abc"}\n{"key": "half", "ta'


def test_damaged_lines_are_moved_aside_and_named(typed, trained, tmp_path):
    typed(*WORDS, "--folder", tmp_path)
    path = tmp_path / "c/results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + JUNK)
    code, out, error = typed(*WORDS, "--folder", tmp_path)
    assert code == 0 and "1 of 1 runs are done already" in " ".join(out.split())
    one_line(error, "Moved 2 damaged line(s) to", tmp_path / "c/damaged.jsonl")
    assert path.read_bytes() == whole
    assert (tmp_path / "c/damaged.jsonl").read_bytes() == JUNK + b"\n"


@pytest.mark.parametrize("content", [b"", b"PAR1", "cut"])
@pytest.mark.parametrize("how", ["bench", "report"])
def test_a_damaged_table_is_named_and_stays(typed, trained, tmp_path, content, how):
    assert typed(*bench(tmp_path))[0] == 0
    path = tmp_path / "b/results.parquet"
    path.write_bytes(path.read_bytes()[:200] if content == "cut" else content)
    before = path.read_bytes()
    words = bench(tmp_path) if how == "bench" else ("report", tmp_path / "b")
    code, _, error = typed(*words)
    assert code == 2 and path.read_bytes() == before
    one_line(error, f"{path} is damaged", "put the original back, or move it away")


@pytest.mark.parametrize("name", ["study.json", "prices.json"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"tasks": 3, "prices": 3}'])
def test_damaged_json_is_named_and_stays(typed, trained, tmp_path, name, content):
    assert typed(*bench(tmp_path))[0] == 0
    path = tmp_path / "b" / name
    path.write_bytes(content)
    for words in [("report", tmp_path / "b"), *([bench(tmp_path)] if name == "study.json" else [])]:
        code, _, error = typed(*words)
        assert code == 2 and path.read_bytes() == content
        one_line(error, f"{path} is damaged", "move it away")


def test_a_report_says_which_lines_it_leaves_out(typed, trained, tmp_path, monkeypatch):
    assert typed(*bench(tmp_path))[0] == 0
    monkeypatch.setattr("f3eo.bench.report.study_page.pictures", lambda analysis: {})
    with (tmp_path / "b/results.jsonl").open("ab") as file:
        file.write(JUNK)
    code, _, error = typed("report", tmp_path / "b")
    assert code == 0
    one_line(error, tmp_path / "b/results.jsonl", "2 damaged line(s), which are left out")
    assert "2 damaged line(s)" in (tmp_path / "b/report.html").read_text()


def test_a_folder_that_rich_and_polars_would_read_as_markup(typed, trained, tmp_path):
    place = tmp_path / "x[bold" / "y] :smile: *"
    for _ in range(2):
        code, out, error = typed(*WORDS, "--folder", place)
        assert code == 0 and not error and str(place / "c/report.html") in out
    store = Store(place / "c")
    store.compact(store.arrange(lambda row: True, lambda row: True)[0])
    assert Store(place / "c").arrange(lambda row: True, lambda row: True)[0]


class Latin(io.TextIOWrapper):
    """A terminal that knows Latin-1 alone."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="latin-1")


def test_a_terminal_without_unicode_loses_signs_and_no_result(monkeypatch, tmp_path):
    out = Latin()
    monkeypatch.setattr(sys, "stdout", out)
    file = tmp_path / "m.json"
    words = ["f3eo", "methods", "--methods", "sgd", "bsam", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", words)
    assert cli.main() == 0
    shown = out.buffer.getvalue().decode("latin-1")
    assert "torch.optim.SGD" in shown and "  - |" in shown and "?" not in shown
    assert json.loads(file.read_text("utf-8"))[0]["name"] == "sgd"


@pytest.mark.parametrize("number, code", [(errno.EPIPE, 141), (errno.ENOSPC, 2)])
def test_an_output_that_takes_no_more_ends_after_the_file_is_written(
    monkeypatch, capsys, tmp_path, number, code
):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(number, os.strerror(number))

    file = tmp_path / "m.json"
    words = ["f3eo", "methods", "--methods", "sgd", "--json", str(file)]
    monkeypatch.setattr(sys, "stdout", Gone())
    monkeypatch.setattr(sys, "argv", words)
    assert cli.main() == code
    one_line(capsys.readouterr().err, "tandard output")
    assert json.loads(file.read_text())[0]["name"] == "sgd"


def test_what_is_no_ordinary_file_is_written_to_and_stays(typed, tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to(real)
    disk.write(link, "text")
    assert link.is_symlink() and real.read_text() == "text"
    if Path("/dev/full").exists():
        code, out, error = typed("methods", "--methods", "sgd", "--json", "/dev/full")
        assert code == 2 and not Path("/dev/full").is_file() and "torch.optim.SGD" in out
        one_line(error, "/dev/full: No space left on device")


def test_all_words_are_readable_in_80_columns(typed):
    _, out, _ = typed("methods", "--methods", "layerwise_gn", "psgd_newton")
    for word in (
        *("method", "order", "calls", "cost", "NaN", "health", "needs", "from, paper"),
        *("differentiated", "f3eo.second_order.LayerwiseGaussNewton", "heavyball.PSGDKron"),
    ):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out


@pytest.mark.parametrize(
    "error, code, parts",
    [
        (KeyError("task"), 1, ("KeyError: 'task'", "a bug in f3eo", "F3EO_TRACEBACK=1")),
        (ModuleNotFoundError("No module", name="tyro"), 2, ("tyro is missing", "f3eo[bench]")),
        (ValueError("two\nlines"), 2, ("Error: two lines",)),
        (KeyboardInterrupt(), 130, ("Interrupted",)),
    ],
)
def test_other_ends(typed, monkeypatch, error, code, parts):
    def end(*_, **__):
        raise error

    monkeypatch.setattr("f3eo.cli.app.app.cli", end)
    found, _, said = typed("methods")
    assert found == code
    one_line(said, *parts)


def test_version(typed):
    code, out, error = typed("--version")
    assert code == 0 and out.startswith("f3eo ") and not error


def test_the_published_study_gives_the_published_numbers(tmp_path):
    """`f3eo report results/study` writes what docs/benchmark.md shows."""
    from f3eo.bench.report.analysis import Analysis
    from f3eo.bench.report.study_data import load
    from f3eo.bench.report.summary import text

    root = Path(__file__).parents[3]
    folder = shutil.copytree(
        root / "results/study", tmp_path / "study", ignore=shutil.ignore_patterns("*.jsonl")
    )
    summary = text(Analysis(load(folder)))
    assert summary == (root / "results/study/summary.md").read_text("utf-8")
    page = (root / "docs" / "benchmark.md").read_text("utf-8")
    shown = sorted(cell.strip() for row in _rows(page, "| F3EO | 97") for cell in row)
    assert shown == sorted(cell.strip() for row in _rows(summary, "| F3EO | 97") for cell in row)


def _rows(text, first):
    """The rows of a Markdown table from the one that begins so."""
    lines = text[text.index(first) :].split("\n\n")[0].splitlines()
    assert len(lines) == 11
    return [line.strip("|").split("|") for line in lines]
