"""One run written as one row: its configuration, its result or its error, its environment."""

import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from f3eo.bench.environment import machine, versions
from f3eo.bench.run import Run
from f3eo.bench.train import Result, train

Row = dict[str, Any]
"""A line of results.jsonl.

`key`, `task`, `method`, `seed`, `config`; `status`: "finished", "diverged" or "failed"; `error`
and `traceback`: text or null; `steps` and `gradient_equivalents` (cost of one step); `final`: the
last value of each metric, null unless finished; `curve`: lists of equal length; `versions`,
`machine`, `time`; `command`: what was typed.
"""


def record(run: Run, progress: Callable[[float], object] = lambda share: None) -> Row:
    """Train a run and write down what came of it; an error becomes a row, too."""
    try:
        return _measured(run, train(run, progress))
    except Exception as error:
        return failed(run, f"{type(error).__name__}: {error}", traceback.format_exc())


def failed(run: Run, error: str, trace: str | None = None) -> Row:
    """The row of a run that ended in an error."""
    return (
        _identity(run)
        | {
            "status": "failed",
            "error": error,
            "traceback": trace,
            "steps": None,
            "gradient_equivalents": None,
            "final": None,
            "curve": None,
        }
        | _environment()
    )


def _measured(run: Run, result: Result) -> Row:
    error = None
    if result.diverged:
        last = result.curve["step"][-1] if result.curve else 0
        error = f"the loss or Tr F was no finite number any more, some time after step {last}"
    return (
        _identity(run)
        | {
            "status": "diverged" if result.diverged else "finished",
            "error": error,
            "traceback": None,
            "steps": result.steps,
            "gradient_equivalents": result.gradient_equivalents,
            "final": None if error else {name: values[-1] for name, values in result.curve.items()},
            "curve": result.curve,
        }
        | _environment()
    )


def _identity(run: Run) -> Row:
    return {
        "key": run.key,
        "task": run.task,
        "method": run.method,
        "seed": run.seed,
        "config": run.config,
    }


def _environment() -> Row:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"versions": versions(), "machine": machine(), "time": now}
