"""The stages of a study of streams: time the steps, try settings, choose the best, test them."""

import json
import math
import time
from collections.abc import Sequence

from rich.console import Console

from f3eo.bench.continual.plan.prices import prices
from f3eo.bench.continual.plan.standings import Averages
from f3eo.bench.continual.plan.study import Options, StreamStudy
from f3eo.bench.continual.plan.tuning import best
from f3eo.bench.continual.run.row import failed, record, restore
from f3eo.bench.continual.run.stream_run import StreamRun
from f3eo.bench.continual.streams import STREAMS
from f3eo.bench.execute import disk
from f3eo.bench.execute.kind import Kind
from f3eo.bench.execute.resume import Carried, carry_out
from f3eo.bench.execute.store import Store
from f3eo.bench.plan.stages import Outcome
from f3eo.bench.run.row import Row

STREAM_RUNS = Kind(
    record=record,
    failed=failed,
    restore=restore,
    contest=lambda row: (row["stream"], row["config"]["equal"]),
    contender=lambda row: (row["learner"],),
    view=Averages,
)
"""The runs of studies of streams."""
CURE = "move it away: the next command writes a new one"
"""Advice in the error about a damaged study.json."""


def carry_out_study(study: StreamStudy, console: Console) -> Outcome:
    """Tune what is not tuned yet, then run the best settings on the test sets.

    Finished runs are kept and not repeated. Ctrl-C, or the end of `StreamStudy.minutes`, stops the
    study in order.

    Args:
        study: the plan.
        console: shows the progress.
    """
    deadline = math.inf if study.minutes is None else time.monotonic() + 60 * study.minutes
    disk.prepare(study.path)
    write_manifest(study)
    costs: dict[tuple[str, str], float] = {}
    if "time" in study.equal:
        costs = prices(
            {name: study.stages_of(name) for name in study.streams},
            study.learners,
            study.path / "prices.json",
            console.print,
        )
    trials = _carry_out(study, "trials", study.trial_runs(), console, deadline)
    if trials.missing:  # the best settings are not known yet
        return Outcome(trials.rows, [], trials.missing, trials.failure)
    runs = study.result_runs(choose_options(study, trials.rows), costs)
    results = _carry_out(study, "results", runs, console, deadline)
    return Outcome(trials.rows, results.rows, results.missing, results.failure)


def choose_options(study: StreamStudy, trials: Sequence[Row]) -> Options:
    """The best options by stream and learner; the defaults where no trial finished.

    Args:
        study: gives streams and learners.
        trials: rows of its trials.
    """
    chosen = dict(study.defaults)
    for stream, learner in chosen:
        own = [row for row in trials if (row["stream"], row["learner"]) == (stream, learner)]
        if setting := best(own, STREAMS[stream].metric):
            chosen[stream, learner] = setting.options
    return chosen


def write_manifest(study: StreamStudy) -> None:
    """Write `study.json`; streams and learners of earlier commands are kept.

    Raises:
        Damaged: the file that exists is not a manifest.
    """
    path = study.path / "study.json"
    before = disk.read_json(path, CURE, lambda asked: [*asked["streams"], *asked["learners"]])
    names = ("name", "trials", "seeds", "samples", "tests", "command")
    asked = {name: getattr(study, name) for name in names}
    asked["equal"] = list(dict.fromkeys([*before.get("equal", ()), *study.equal]))
    asked["learners"] = list(dict.fromkeys([*before.get("learners", ()), *study.learners]))
    asked["streams"] = before.get("streams", {}) | {
        name: {
            "description": STREAMS[name].description,
            "stages": study.stages_of(name),
            "metric": STREAMS[name].metric,
            "chance": STREAMS[name].chance,
        }
        for name in study.streams
    }
    disk.write(path, json.dumps(asked, indent=1, ensure_ascii=False) + "\n")


def _carry_out(
    study: StreamStudy,
    name: str,
    runs: Sequence[StreamRun],
    console: Console,
    deadline: float,
) -> Carried:
    """Carry out runs; their rows are kept as lines and, at the end, as a table."""
    store = Store(study.path, name, restore)
    carried = carry_out(
        runs,
        store,
        console,
        workers=study.workers,
        command=study.command,
        deadline=deadline,
        kind=STREAM_RUNS,
    )
    store.compact(carried.rows)
    return carried
