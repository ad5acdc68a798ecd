"""Replay at the step of F3EO with a memory, on text: every row is one run; it resumes.

PYTHONPATH=src F3EO_DATA=… python results/rehearsal/run.py results/streams

F3EO with a memory descends the sum of the current and the memory's loss, replay their mean. At
twice the rate and the same momentum both take the same step along the losses. No rate of the
study's range gives that step to replay where F3EO chose the highest, as on text.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from f3eo.bench.continual.report import load
from f3eo.bench.continual.run.row import record
from f3eo.bench.continual.run.stream_run import StreamRun
from f3eo.bench.run.row import Row

ROWS = Path(__file__).with_name("rows.jsonl")
STREAM, OURS, RIVAL = "text", "f3eo_memory", "replay"


def runs(results: list[Row]) -> list[StreamRun]:
    """For every result of F3EO with a memory, replay on its seed and at its step."""
    found = [r for r in results if (r["stream"], r["config"]["equal"]) == (STREAM, "steps")]
    chosen = {row["learner"]: row["config"]["options"] for row in found}
    step = {"lr": 2 * chosen[OURS]["lr"], "momentum": chosen[OURS]["momentum"]}
    names = ("stages", "batch", "epochs", "samples", "tests")
    return [
        StreamRun(
            STREAM,
            RIVAL,
            row["seed"],
            chosen[RIVAL] | step,
            **{name: row["config"][name] for name in names},
        )
        for row in found
        if row["learner"] == OURS
    ]


def measured(one: StreamRun) -> Row:
    """The row of a run, on one thread."""
    torch.set_num_threads(1)
    return record(one)


def read() -> list[Row]:
    """The stored rows."""
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    return [json.loads(line) for line in lines]


def main() -> None:
    """Carry out the runs that are not stored."""
    if len(sys.argv) != 2:
        sys.exit("give the folder of a study: python results/rehearsal/run.py results/streams")
    stored = {row["key"] for row in read()}
    left = [one for one in runs(load(Path(sys.argv[1])).results) if one.key not in stored]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for row in pool.map(measured, left):
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row["learner"], row["seed"], row["error"] or row["scores"][-1], flush=True)


if __name__ == "__main__":
    main()
