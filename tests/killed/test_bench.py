"""`f3eo compare`, killed at random moments and started again, ends with the rows of a whole one."""

import json
import random
import time

from f3eo.bench.execute.store import read
from killed.helpers import alone_in, finished, kill, start, until

WORDS = (
    *("-m", "f3eo", "compare", "--tasks", "wine", "--methods", "sgd", "f3eo", "--seeds", "2"),
    *("--budget", "150", "--workers", "1", "--keep"),
)
MEASURED = ("seconds", "time", "command", "machine", "versions", "environment")
"""Entries of a row that say when and where it was made."""


def results(folder):
    return folder / "compare" / "results.jsonl"


def lines(folder):
    path = results(folder)
    return path.read_bytes().count(b"\n") if path.exists() else -1


def numbers(thing):
    """A row without what was measured by a clock."""
    if isinstance(thing, dict):
        return {k: numbers(v) for k, v in thing.items() if k not in MEASURED}
    return thing


def rows(folder):
    found, damaged = read(results(folder))
    assert not damaged
    return sorted((numbers(row) for row in found), key=lambda row: row["key"])


def test_rows_and_models_of_a_killed_comparison_are_those_of_a_whole_one(tmp_path):
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    finished(start(*WORDS, "--folder", whole, log=log), log=log)
    draw = random.Random(0)
    for count in (0, 1, 2):  # in the first run, the second, the third
        process = start(*WORDS, "--folder", killed, log=log)
        until(lambda count=count: lines(killed) >= count, process, log=log)
        time.sleep(draw.random())
        kill(process)
        until(lambda pid=process.pid: alone_in(pid), log=log)  # its worker has ended by itself
        found, damaged = read(results(killed))
        assert len(found) >= count and not damaged
    with results(killed).open("rb+") as file:  # and as if it had been killed within a line
        file.truncate(results(killed).stat().st_size - 7)
    process = start(*WORDS, "--folder", killed, log=log)
    finished(process, log=log)
    assert "Moved 1 damaged line" in log.read_text()
    assert rows(killed) == rows(whole) and len(rows(whole)) == 4
    assert json.loads(results(killed).read_bytes().splitlines()[0])["status"] == "finished"
    models = [sorted((folder / "compare/models").glob("*.pt")) for folder in (whole, killed)]
    assert [m.read_bytes() for m in models[0]] == [m.read_bytes() for m in models[1]]
    assert len(models[0]) == 4


def test_a_comparison_of_rows_leaves_out_the_clock_alone():
    row = {"final": {"test_accuracy": 1.0, "seconds": 2.0}, "curve": {"step": [1]}, "time": "now"}
    assert numbers(row) == {"final": {"test_accuracy": 1.0}, "curve": {"step": [1]}}
