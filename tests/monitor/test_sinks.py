"""Sinks: what is written can be read again, after a kill, too; a panel shows what it was given."""

import io
import json
import signal
import subprocess
import sys
from collections import deque
from math import inf, isnan, nan

import pytest
from rich.console import Console

from f3eo.monitor import JsonLines, Live, TensorBoard, read_lines
from f3eo.monitor.sinks import live
from f3eo.monitor.sinks.live import bars, shown

SCALARS = {"f3eo/loss": 0.5, "f3eo/trace/0": 1.25}

# JSON lines.


def test_lines_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "runs" / "run.jsonl"
    sink = JsonLines(path)
    sink(0, SCALARS)
    assert read_lines(path) == [{"step": 0, **SCALARS}]  # before the end
    sink(50, {"f3eo/λ": nan, "f3eo/noise_scale": inf, "f3eo/loss": 0.1 + 0.2})
    sink.close()
    _, last = read_lines(str(path))
    assert last == {"step": 50, "f3eo/λ": None, "f3eo/noise_scale": None, "f3eo/loss": 0.1 + 0.2}
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_a_second_run_appends(tmp_path):
    for step in (1, 2):
        sink = JsonLines(tmp_path / "run.jsonl")
        sink(step, SCALARS)
        sink.close()
    assert [row["step"] for row in read_lines(tmp_path / "run.jsonl")] == [1, 2]


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 10000])
def test_a_line_that_was_broken_off_is_dropped_and_then_removed(tmp_path, length):
    path = tmp_path / "run.jsonl"
    whole = b'{"step": 1}\n{"step": 2}\n'
    path.write_bytes(whole + b"x" * length)
    assert [row["step"] for row in read_lines(path)] == [1, 2]
    sink = JsonLines(path)
    assert path.read_bytes() == whole
    sink(3, {})
    sink.close()
    assert [row["step"] for row in read_lines(path)] == [1, 2, 3]


def test_a_file_of_nothing_but_a_broken_line_is_emptied(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"{" * 9000)
    assert read_lines(path) == []
    JsonLines(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("line", ["nothing", "[1]", '{"loss": 1}'])
def test_another_line_is_refused_with_its_number(tmp_path, line):
    path = tmp_path / "run.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*run\.jsonl is none that JsonLines writes"):
        read_lines(path)


WRITER = """
import sys
from f3eo.monitor import JsonLines
sink = JsonLines(sys.argv[1])
step = 0
while True:
    sink(step, {f"f3eo/trace/{k}": float(step) for k in range(200)})
    step += 1
    if step == 20:
        print("running", flush=True)
"""


def test_what_was_written_survives_a_kill(tmp_path):
    path = tmp_path / "run.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    rows = read_lines(path)
    assert [row["step"] for row in rows] == list(range(len(rows))) and len(rows) >= 20
    assert all(len(row) == 201 and row["f3eo/trace/199"] == row["step"] for row in rows)


def test_a_full_disk_is_named():
    sink = JsonLines("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        sink(0, SCALARS)
    sink.close()


def test_half_a_line_is_taken_back(tmp_path):
    sink = JsonLines(tmp_path / "run.jsonl")
    sink(0, SCALARS)
    real = sink._file

    class File:
        closed = False
        fileno, truncate = real.fileno, real.truncate
        write = staticmethod(lambda data: real.write(data[:10]))

    sink._file = File()
    with pytest.raises(OSError, match=r"disk is full, the line of step 1"):
        sink(1, SCALARS)
    real.close()
    assert (tmp_path / "run.jsonl").read_bytes().endswith(b"}\n")
    assert [row["step"] for row in read_lines(tmp_path / "run.jsonl")] == [0]


# The panel.


def console(**options):
    return Console(file=io.StringIO(), width=80, **options)


def test_the_panel_shows_the_last_values_and_their_curves():
    target = console()
    sink = Live(target, title="my [run]")
    for step in range(3):
        sink(step, {"f3eo/loss": 1.0 - 0.25 * step, "f3eo/trace/[bold]": nan})
    assert target.file.getvalue() == ""  # no terminal: at the end
    sink.close()
    sink.close()
    text = target.file.getvalue()
    assert text.count("my [run]  step 2") == 1
    assert "loss" in text and "0.5" in text and "█▅▁" in text and "trace/[bold]" in text


def test_a_panel_without_a_report_shows_nothing():
    target = console()
    Live(target).close()
    assert target.file.getvalue() == ""


def test_a_terminal_follows_the_run_but_not_every_report(monkeypatch):
    target, now = console(force_terminal=True), [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    sink = Live(target)
    for step in range(10):
        now[0] += 0.1
        sink(step, SCALARS)
    drawn = target.file.getvalue().count("step ")
    sink.close()
    assert drawn == 4  # at 0.1, 0.4, 0.7, 1.0
    assert "step 9" in target.file.getvalue()


def test_of_many_layers_the_largest_are_shown():
    curves = {"f3eo/loss": deque([1.0]), "f3eo/trace": deque([2.0])}
    curves |= {f"f3eo/trace/{k}": deque([0.0, float(k)]) for k in range(20)}
    curves["f3eo/trace/gap"] = deque([nan])
    curves["f3eo/cosine"] = deque([0.1])
    expected = ["f3eo/loss", "f3eo/trace", "f3eo/cosine"]
    assert shown(curves) == expected + [f"f3eo/trace/{k}" for k in range(19, 7, -1)]


@pytest.mark.parametrize(
    ("curve", "drawn"),
    [([], ""), ([2.0], "▁"), ([1.0, 1.0], "▁▁"), ([0.0, nan, 7.0, inf, 3.0], "▁ █ ▄")],
)
def test_bars_go_from_the_least_to_the_greatest_value(curve, drawn):
    assert bars(curve) == drawn


# TensorBoard.


class Writer:
    def __init__(self):
        self.rows, self.done = [], []

    def add_scalar(self, name, value, step):
        self.rows.append((name, value, step))

    def flush(self):
        self.done.append("flush")

    def close(self):
        self.done.append("close")


def test_a_writer_of_the_user_gets_scalars_and_stays_open():
    writer = Writer()
    sink = TensorBoard(writer)
    sink(3, SCALARS | {"f3eo/cosine": nan})
    sink.close()
    sink.close()
    assert writer.rows[:2] == [("f3eo/loss", 0.5, 3), ("f3eo/trace/0", 1.25, 3)]
    assert isnan(writer.rows[2][1]) and writer.done == ["flush"]


def test_a_folder_is_written_where_tensorboard_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoard(tmp_path)
    sink(3, SCALARS)
    sink.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("f3eo/loss")] == [(3, 0.5)]


@pytest.mark.parametrize(
    ("module", "make"),
    [("torch.utils.tensorboard", lambda: TensorBoard("runs")), ("rich.console", Live)],
)
def test_what_is_not_installed_is_named_with_the_cure(monkeypatch, module, make):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'f3eo\[monitor\]'"):
        make()


def test_no_writer_is_refused():
    with pytest.raises(TypeError, match="SummaryWriter or the path of a folder, received 3"):
        TensorBoard(3)


@pytest.mark.parametrize("name", ["JsonLines", "Live", "TensorBoard"])
def test_a_closed_sink_says_so(tmp_path, name):
    sinks = {
        "JsonLines": lambda: JsonLines(tmp_path / "run.jsonl"),
        "Live": lambda: Live(console()),
        "TensorBoard": lambda: TensorBoard(Writer()),
    }
    sink = sinks[name]()
    sink.close()
    with pytest.raises(ValueError, match=f"{name} is closed: make a new one"):
        sink(0, SCALARS)


def test_the_package_needs_torch_alone():
    """Neither rich nor tensorboard is imported before it is asked for."""
    code = "import f3eo.monitor, sys; print({'rich', 'tensorboard'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
