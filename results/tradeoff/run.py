"""Penalties from weak to strong on MNIST, then Fashion-MNIST: every row is one run; it resumes.

PYTHONPATH=src F3EO_DATA=… python results/tradeoff/run.py FOLDER

A learner is at the options that a study of streams chose, that of the folder, but for those of
SGD, which are SGD's, and the strength λ of its penalty. On held-out samples of five seeds λ falls
from 16 times the chosen one by factors of two. The largest at which the last task is learnt to
within half a point of SGD is then run on the test sets with twenty seeds. `report.py` compares
them with SGD.
"""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from f3eo.bench.continual.numbers import NUMBERS
from f3eo.bench.continual.plan.tuning import SEED
from f3eo.bench.continual.report import load
from f3eo.bench.continual.run.stream_run import Kind, StreamRun
from f3eo.bench.continual.run.train import train

ROWS = Path(__file__).with_name("rows.jsonl")
STREAM, METRIC, SAMPLES = "mnist-fashion", "accuracy", 5_000
NAMES = {  # of the option that is λ; online EWC is EWC where one task has ended
    "ewc": "strength",
    "ewc_batch": "strength",
    "si": "strength",
    "f3eo_elastic": "penalty",
    "f3eo_stable_elastic": "penalty",
    "stable_ewc": "strength",
}
FACTORS = [2.0**-n for n in range(-4, 12)]
HELD_OUT, FRESH = range(SEED, SEED + 5), range(20)
MARGIN = 0.005

Row = dict[str, Any]


def run(learner: str, options: dict[str, Any], seed: int, kind: Kind) -> StreamRun:
    """One run of both stages."""
    return StreamRun(STREAM, learner, seed, options, 2, 10, 1, samples=SAMPLES, kind=kind)


def measured(one: StreamRun) -> Row:
    """The row of a run; of one that diverged without numbers."""
    torch.set_num_threads(1)
    found = train(one)
    row: Row = {"key": one.key, "learner": one.learner, "seed": one.seed, "kind": one.kind}
    row["options"], row["error"] = dict(one.options), found.error
    for name in ("average", "forgetting", "last"):
        row[name] = None if found.error else NUMBERS[name].of(found.scores, METRIC)
    return row


def carry_out(runs: Sequence[StreamRun]) -> list[Row]:
    """Rows of runs, those that are stored not run again."""
    stored = {row["key"]: row for row in read()}
    left = [one for one in runs if one.key not in stored]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for row in pool.map(measured, left):
            stored[row["key"]] = row
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            said = (row[name] for name in ("kind", "learner", "seed", "forgetting", "last"))
            print(*said, flush=True)
    return [stored[one.key] for one in runs]


def read() -> list[Row]:
    """The stored rows."""
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    return [json.loads(line) for line in lines]


def last(rows: Sequence[Row]) -> float:
    """The mean score on the last task; of a run that diverged, none."""
    scores = [row["last"] for row in rows]
    return -1.0 if None in scores else fmean(scores)


def main() -> None:
    """Choose λ on held-out samples, then run it on the test sets."""
    if len(sys.argv) != 2:
        sys.exit("give the folder of a study: python results/tradeoff/run.py results/streams")
    options: dict[str, dict[str, Any]] = {}
    for row in load(Path(sys.argv[1])).results:
        if row["stream"] == STREAM and row["config"]["equal"] == "steps":
            options[row["learner"]] = row["config"]["options"]
    held_out = [run("sgd", options["sgd"], seed, "trial") for seed in HELD_OUT]
    bound = last(carry_out(held_out)) - MARGIN
    fresh = [run("sgd", options["sgd"], seed, "result") for seed in FRESH]
    for learner, name in NAMES.items():
        for factor in FACTORS:
            strength = options[learner][name] * factor
            own = options[learner] | options["sgd"] | {name: strength}
            if last(carry_out([run(learner, own, seed, "trial") for seed in HELD_OUT])) >= bound:
                fresh += [run(learner, own, seed, "result") for seed in FRESH]
                break
    carry_out(fresh)


if __name__ == "__main__":
    main()
