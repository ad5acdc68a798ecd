"""The row of a stream run: its configuration, result or error, and environment."""

import traceback
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from f3eo.bench.continual.run.stream_run import EQUALS, KINDS, StreamRun
from f3eo.bench.continual.run.structure import NAMES
from f3eo.bench.continual.run.train import Result, train
from f3eo.bench.run.environment import environment
from f3eo.bench.run.row import NUMBER, STATUS, TEXT, Row

ENTRIES: Mapping[str, Any] = {
    **dict.fromkeys(("key", "stream", "learner", "kind", "status"), str),
    "seed": int,
    **dict.fromkeys(("config", "versions", "machine"), dict),
    **dict.fromkeys(("error", "traceback"), TEXT),
    **dict.fromkeys(("steps", "scores", "losses", "unseen", "warnings"), list),
    "structure": dict,
    "seconds": NUMBER,
}
"""Entries of every row, with their types.

| name | value |
|---|---|
| `key`, `stream`, `learner`, `seed` | see `StreamRun` |
| `kind` | "result", or "trial" on held-out samples |
| `config` | `kind`, `equal` ("steps" or "time"), `stages`, `batch`, `epochs`, `samples`, `tests`, `options`, and the `price` at equal time |
| `status` | "finished", "diverged" or "failed" |
| `error`, `traceback` | text or null |
| `steps` | of each stage that ended |
| `scores` | K + 1 lists of K numbers: on the test set of each stage, before training and after each stage |
| `losses` | the same of the test loss |
| `structure` | lists of K numbers by name, see `f3eo.bench.continual.run.structure`; empty in trials |
| `unseen` | see `f3eo.bench.continual.run.newcomers` |
| `seconds` | of training |
| `warnings` | texts |
| `versions`, `machine`, `time` | see `f3eo.bench.run.environment`; time of writing |
| `command` | the command line |
"""  # noqa: E501


def record(run: StreamRun, progress: Callable[[float], object] = lambda share: None) -> Row:
    """Train a run and return its row; an error gives a row, too.

    Args:
        run, progress: see `f3eo.bench.continual.run.train.train`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            row = _measured(run, train(run, progress))
        except Exception as error:
            row = failed(run, f"{type(error).__name__}: {error}", traceback.format_exc())
    return row | {"warnings": list(dict.fromkeys(str(warning.message) for warning in caught))}


def failed(run: StreamRun, error: str, trace: str | None = None) -> Row:
    """The row of a run that ended with an error."""
    return _row(run, status="failed", error=error, traceback=trace)


def check(row: Any) -> None:
    """Refuse an object that is not a row, e.g. of a truncated line.

    Raises:
        ValueError: an entry is missing, of another type or of another shape; the message names it.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a row is an object, received a {type(row).__name__}")
    for name, kind in ENTRIES.items():
        if name not in row or not isinstance(row[name], kind):
            raise ValueError(f"the row's {name} is missing or of another type")
    if row["status"] not in STATUS or row["kind"] not in KINDS:
        raise ValueError(f"the row's status or kind is unknown: {row['status']!r}, {row['kind']!r}")
    config = row["config"]
    stages, equal = config.get("stages"), config.get("equal")
    if not isinstance(stages, int) or equal not in EQUALS or "options" not in config:
        raise ValueError("the row's config has no stages, no options, or equal is unknown")
    for name in ("scores", "losses"):
        rows = row[name]
        if any(len(own) != stages for own in rows) or len(rows) > stages + 1:
            raise ValueError(f"the row's {name} are not of {stages} stages")
        if row["status"] == "finished" and len(rows) != stages + 1:
            raise ValueError(f"the row finished with {len(rows)} lists of {name}, not {stages + 1}")
    if row["status"] == "finished" and row["kind"] == "result":
        lacking = [name for name in NAMES if len(row["structure"].get(name, ())) != stages]
        if lacking:
            raise ValueError(f"the row's structure lacks {lacking[0]} of {stages} stages")


def restore(stored: Any) -> Row:
    """A stored row, checked.

    Raises:
        ValueError, TypeError: see `check`.
    """
    check(stored)
    return stored


def _measured(run: StreamRun, result: Result) -> Row:
    return _row(
        run,
        status="diverged" if result.error else "finished",
        error=result.error or None,
        steps=result.steps,
        scores=result.scores,
        losses=result.losses,
        structure=result.structure if result.points else {},
        unseen=result.unseen,
        seconds=result.seconds,
    )


def _row(run: StreamRun, **known: Any) -> Row:
    """A row with every entry."""
    row = {
        "key": run.key,
        "stream": run.stream,
        "learner": run.learner,
        "seed": run.seed,
        "kind": run.kind,
        "config": run.config,
        "status": None,
        "error": None,
        "traceback": None,
        "steps": [],
        "scores": [],
        "losses": [],
        "structure": {},
        "unseen": [],
        "seconds": None,
        "warnings": [],
        **environment(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return row | known
