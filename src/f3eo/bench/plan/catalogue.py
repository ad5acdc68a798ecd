"""The list of all methods: order, needs, cost of a step, source and health."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from f3eo.bench.methods import METHODS
from f3eo.bench.methods.count import Count, count
from f3eo.bench.methods.health import examine
from f3eo.bench.methods.method import Method
from f3eo.bench.plan.spaces import TUNED, space
from f3eo.bench.price.step_times import step_times

TASK = "digits-mlp"
"""The task whose model and batches are used to time steps."""

Line = dict[str, Any]
"""One method as plain data; an unknown value is None.

- `name`, `label`, `kind`, `note`: texts. `order`: 1, 2 or 3.
- `needs`: what the closure must return. `calls`: closure calls per step.
- `gradient_equivalents`: counted cost of a step in plain gradients (`f3eo.bench.methods.count`).
- `time_ratio`, `time_ratio_low`, `time_ratio_high`: time of a step over that of a plain gradient
  step, median and quartiles.
- `package`, `version`, `class`, `paper`: the source.
- `defaults`: hyper-parameters. `space`: their ranges in `f3eo bench`, [low, high] by name.
- `nan`: the effect of a NaN loss. `problems`: failed checks (`f3eo.bench.methods.health`).
"""


def catalogue(
    names: Sequence[str], measure: bool, tell: Callable[[str], object] = lambda text: None
) -> list[Line]:
    """Count the cost of the methods, check their health and, optionally, time their steps.

    Args:
        names: names of methods.
        measure: whether to time the steps.
        tell: called with a progress message; default ignores it.

    Returns:
        One line per method.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runs record them
        lines = []
        for name in names:
            tell(f"{name} …")
            lines.append(_line(METHODS[name]))
        if measure:
            tell(f"timing on {TASK} …")
            times = step_times(TASK, {name: (name, METHODS[name].options()) for name in names})
            for line in lines:
                ratios = times.ratios.get(line["name"], (None, None, None))
                keys = ("time_ratio", "time_ratio_low", "time_ratio_high")
                line.update(zip(keys, ratios, strict=True))
    return lines


def _line(method: Method) -> Line:
    health = examine(method.name)
    try:
        counted: Count | None = count(method.name, method.options())
    except Exception:  # `health.problems` reports it
        counted = None
    ranges = space(method.name) if method.name in TUNED else {}
    return {
        "name": method.name,
        "label": method.label,
        "order": method.order,
        "kind": method.kind,
        "needs": method.needs,
        "calls": counted and counted.calls,
        "gradient_equivalents": counted and counted.gradient_equivalents,
        "time_ratio": None,
        "time_ratio_low": None,
        "time_ratio_high": None,
        "package": method.source.package,
        "version": method.source.version,
        "class": method.source.name,
        "paper": method.source.paper,
        "defaults": dict(method.defaults),
        "space": {name: [d.low, d.high] for name, d in ranges.items()},
        "nan": health.nan,
        "problems": health.problems,
        "note": method.note,
    }


def tables(lines: Sequence[Line]) -> tuple[Table, Table]:
    """Two tables, each 80 columns wide: cost and health; needs and source."""
    timed = any(line["time_ratio"] for line in lines)
    costs = _grid("method", "order", "calls", "cost", *(["time"] if timed else []), "NaN", "health")
    facts = _grid("method", "needs", "from, paper")
    facts.columns[1].max_width = 20  # keeps class names on one line in 80 columns
    for line in lines:
        time = [_number(line["time_ratio"])] if timed else []
        sound = Text("sound", "green") if not line["problems"] else Text("see below", "red")
        costs.add_row(
            line["name"],
            f"{line['order']} {line['kind']}",
            _number(line["calls"], 1),
            Text(_number(line["gradient_equivalents"]), "bold"),
            *time,
            line["nan"],
            sound,
        )
        origin = f"{line['class']} {line['version'] or 'missing'}"
        facts.add_row(line["name"], line["needs"], f"{origin}\n{line['paper']}")
    return costs, facts


def _grid(*names: str) -> Table:
    """An empty table that folds long text instead of cutting it."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in names:
        number = name in ("calls", "cost", "time")
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    return grid


def remarks(lines: Sequence[Line]) -> Text:
    """The problems of all methods, then missing packages and notes."""
    text = Text()
    for line in lines:
        for problem in line["problems"]:
            text.append(f"{line['name']}: {problem}\n", "red")
    for line in lines:
        if line["version"] is None:
            extra = METHODS[line["name"]].source.extra
            text.append(f"{line['name']}: pip install 'f3eo[{extra}]' installs it\n")
        if line["note"]:
            text.append(f"{line['name']}: {line['note']}\n")
    return text


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


NOTE = (
    "Cost: the counted matrix products of a step on a batch, over those of one forward and one "
    "backward pass; a double backward counts its own products. Calls: of the closure, per step. "
    "NaN: the effect of a NaN loss on the parameters. Health: see `f3eo.bench.methods.health`."
)
