"""The stages of a study: time the steps, try settings, choose the best, test them."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from f3eo.bench.execute.resume import Carried, carry_out
from f3eo.bench.execute.store import Store
from f3eo.bench.plan.choice import choose_bases, choose_options
from f3eo.bench.plan.manifest import write_manifest
from f3eo.bench.plan.spaces import BASES, WRAPPERS
from f3eo.bench.plan.study import Study
from f3eo.bench.price.prices import prices, step_kind
from f3eo.bench.run.row import Row
from f3eo.bench.run.run import Run


@dataclass(frozen=True)
class Outcome:
    """The state of a study after a command.

    Attributes:
        trials, results: its rows, earlier ones included.
        missing: number of runs left to do.
        failure: the error of the last run if every run of the last stage failed, else None.
    """

    trials: list[Row]
    results: list[Row]
    missing: int
    failure: str | None


def tune(study: Study, console: Console) -> Outcome:
    """Time the steps of all methods and try their settings on held-out samples.

    Finished runs are kept and not repeated. Ctrl-C, or the end of `Study.minutes`, stops the study
    in order.

    Args:
        study: the plan.
        console: shows the progress.
    """
    return _tune(study, console, _deadline(study))[1]


def bench(study: Study, console: Console) -> Outcome:
    """Tune what is not tuned yet, then run the best settings on the test set.

    Finished runs are kept and not repeated. Ctrl-C, or the end of `Study.minutes`, stops the study
    in order.

    Args:
        study: the plan.
        console: shows the progress.
    """
    deadline = _deadline(study)
    study, tuned, step_prices = _tune(study, console, deadline)
    if tuned.missing:  # the best settings are not known yet
        return tuned
    runs = study.result_runs(choose_options(study, tuned.trials))
    results = _carry_out(study, "results", runs, console, deadline, step_prices)
    return Outcome(tuned.trials, results.rows, results.missing, results.failure)


def _tune(
    study: Study, console: Console, deadline: float
) -> tuple[Study, Outcome, dict[str, float]]:
    """The study with its bases chosen, its trials, and the prices of all its steps."""
    if study.base == "best" and set(study.methods) & set(WRAPPERS):
        alone = replace(study, methods=tuple(BASES), base="usual", parts=("results",))
        step_prices = _measure_prices(alone, console, *(replace(study, base=b) for b in BASES))
        trials = _try(alone, console, deadline, step_prices)
        if trials.missing:
            return study, Outcome(trials.rows, [], trials.missing, trials.failure), {}
        study = choose_bases(study, trials.rows)
    step_prices = _measure_prices(study, console)
    trials = _try(study, console, deadline, step_prices)
    return study, Outcome(trials.rows, [], trials.missing, trials.failure), step_prices


def _try(
    study: Study, console: Console, deadline: float, step_prices: Mapping[str, float]
) -> Carried:
    return _carry_out(study, "trials", study.trial_runs(), console, deadline, step_prices)


def _carry_out(
    study: Study,
    name: str,
    runs: Sequence[Run],
    console: Console,
    deadline: float,
    step_prices: Mapping[str, float],
) -> Carried:
    """Carry out runs at their prices; their rows are kept as lines and, at the end, as a table."""
    priced = [replace(run, price=step_prices[step_kind(run)]) for run in runs]
    store = Store(study.path, name)
    carried = carry_out(
        priced,
        store,
        console,
        workers=study.workers,
        command=study.command,
        deadline=deadline,
    )
    store.compact(carried.rows)
    return carried


def _measure_prices(study: Study, console: Console, *others: Study) -> dict[str, float]:
    """The price of every kind of step; all kinds of a task are timed together, before any run.

    Args:
        study: the plan.
        console: shows the progress.
        others: plans whose kinds are timed with them, since one of them follows.
    """
    write_manifest(study)
    plans = [
        replace(plan, parts=tuple(dict.fromkeys(("results", *plan.parts))), seeds=1)
        for plan in (study, *others)
    ]
    kinds = [run for plan in plans for run in plan.result_runs(plan.defaults)]
    return prices(kinds, study.path / "prices.json", console.print)


def _deadline(study: Study) -> float:
    return math.inf if study.minutes is None else time.monotonic() + 60 * study.minutes
