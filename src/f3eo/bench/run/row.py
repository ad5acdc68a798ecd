"""The row of a run: its configuration, result or error, and environment."""

import traceback
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from torch import nn

from f3eo.bench.run.environment import environment
from f3eo.bench.run.names import current
from f3eo.bench.run.run import Equal, Run
from f3eo.bench.run.train import Result, train

Row = dict[str, Any]
"""A line of results.jsonl.

| name | value |
|---|---|
| `key`, `task`, `method`, `variant` | see `Run` |
| `kind` | "result", or "trial" on held-out samples |
| `seed`, `config` | see `Run`; `config` has a `price` if the budget is time |
| `status` | "finished", "diverged" or "failed" |
| `error`, `traceback` | text or null |
| `steps`, `gradient_equivalents` | number of steps; cost of one step |
| `final`, `target`, `curve`, `source` | see `f3eo.bench.run.train.Result`; `final` is null unless finished |
| `best` | best test accuracy and best test loss on the curve |
| `warnings` | texts |
| `versions`, `machine`, `time` | see `f3eo.bench.run.environment`; time of writing |
| `command` | the command line |
"""  # noqa: E501


ENDS = ("test_accuracy", "test_loss", "train_loss", "fisher_trace", "seconds")
"""Entries that `final` has at least; only the first in rows without a curve."""
STATUS = ("finished", "diverged", "failed")
TEXT, NUMBER = (str, type(None)), (int, float, type(None))
KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("key", "task", "method", "status"), str),
    **dict.fromkeys(("config", "versions", "machine"), dict),
    **dict.fromkeys(("final", "curve"), (dict, type(None))),
    **dict.fromkeys(("error", "traceback"), TEXT),
    **dict.fromkeys(("steps", "gradient_equivalents"), NUMBER),
    "seed": int,
    "warnings": list,
}
"""Types of the entries that every row has, in all versions."""


def record(
    run: Run,
    progress: Callable[[float], object] = lambda share: None,
    watch: Callable[[nn.Module], object] = lambda model: None,
) -> Row:
    """Train a run and return its row; an error gives a row, too.

    Args:
        run, progress, watch: see `f3eo.bench.run.train.train`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            row = _measured(run, train(run, progress, watch))
        except Exception as error:
            row = failed(run, f"{type(error).__name__}: {error}", traceback.format_exc())
    return row | {"warnings": list(dict.fromkeys(str(warning.message) for warning in caught))}


def equal(row: Row) -> Equal:
    """What the row's comparison holds equal: "cost" or "time"."""
    return "time" if "price" in row["config"] else "cost"


def failed(run: Run, error: str, trace: str | None = None) -> Row:
    """The row of a run that ended with an error."""
    return _row(run, status="failed", error=error, traceback=trace)


def check(row: Any) -> None:
    """Refuse an object that is not a row, e.g. of a truncated line.

    Raises:
        ValueError: an entry is missing or of another type; the message names it.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a row is an object, received a {type(row).__name__}")
    for name, kind in KINDS.items():
        if name not in row or not isinstance(row[name], kind):
            raise ValueError(f"the row's {name} is missing or of another type")
    config, final, curve = row["config"], row["final"], row["curve"]
    if not isinstance(config.get("options"), dict) or not isinstance(config.get("budget"), int):
        raise ValueError("the row's config has no options or no budget")
    if row["status"] not in STATUS or (row["status"] == "finished") != bool(final):
        raise ValueError(f"the row's status {row['status']!r} does not fit its final values")
    if final and not set(ENDS if curve else ENDS[:1]) <= set(final):
        raise ValueError(f"the row's final values lack one of {', '.join(ENDS)}")
    if len({len(values) for values in (curve or {}).values()}) > 1:
        raise ValueError("the row's curve has lists of different lengths")


def restore(stored: Any) -> Row:
    """A stored row, checked, in today's names; see `f3eo.bench.run.names`.

    Raises:
        ValueError, TypeError: see `check`.
    """
    check(stored)
    config, label = stored["config"], stored.get("variant", "")
    variant, options = current(stored["method"], label, config["options"])
    row = stored | {"config": config | {"options": options}}
    return row | {"variant": variant} if "variant" in stored else row


def _measured(run: Run, result: Result) -> Row:
    known = {
        "steps": result.steps,
        "gradient_equivalents": result.gradient_equivalents,
        "best": result.best,
        "target": result.target,
        "curve": result.curve,
        "source": result.source,
    }
    if result.final is None:
        last = result.curve["step"][-1] if result.curve else 0
        error = f"the loss or Tr F was not finite, after step {last}"
        return _row(run, status="diverged", error=error, **known)
    return _row(run, status="finished", final=result.final, **known)


def _row(run: Run, **known: Any) -> Row:
    """A row with every entry; unknown values are null."""
    row = {
        "key": run.key,
        "task": run.task,
        "method": run.method,
        "variant": run.variant,
        "kind": "trial" if run.split == "validation" else "result",
        "seed": run.seed,
        "config": run.config,
        "status": None,
        "error": None,
        "traceback": None,
        "steps": None,
        "gradient_equivalents": None,
        "final": None,
        "best": None,
        "target": None,
        "curve": None,
        "source": None,
        "warnings": [],
        **environment(run.place),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return row | known
