"""The methods the benchmark knows, as a list: what each is, asks for, costs, and if it is sound."""

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
"""Whose model and batches steps are timed on."""

Line = dict[str, Any]
"""One method; what is not known is null.

`name`, `label`; `order`: 1, 2 or 3; `kind`; `needs`: of the closure; `calls`: of it in a step;
`gradient_equivalents`: counted cost of a step (see `f3eo.bench.methods.count`); `time_ratio`,
`time_ratio_low`, `time_ratio_high`: time of a step over that of a plain gradient, median and
quartiles; `package`, `version`, `class`, `paper`; `defaults`: hyper-parameters; `space`: the
ranges `f3eo bench` tunes it in; `nan`: what a NaN loss does; `problems`: what the checks found (see
`f3eo.bench.methods.health`); `note`.
"""


def catalogue(
    names: Sequence[str], measure: bool, tell: Callable[[str], object] = lambda text: None
) -> list[Line]:
    """Count, check and, if asked to, time the methods.

    Args:
        names: of methods.
        measure: whether to time them.
        tell: called with what is going on.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a run they are recorded
        lines = []
        for name in names:
            tell(f"{name} …")
            lines.append(_line(METHODS[name]))
        if measure:
            tell(f"timing on {TASK} …")
            times = step_times(TASK, {name: (name, METHODS[name].options()) for name in names})
            for line in lines:
                found = times.ratios.get(line["name"], (None, None, None))
                keys = ("time_ratio", "time_ratio_low", "time_ratio_high")
                line.update(zip(keys, found, strict=True))
    return lines


def _line(method: Method) -> Line:
    health = examine(method.name)
    try:
        counted: Count | None = count(method.name, method.options())
    except Exception:  # what is wrong stands among the problems
        counted = None
    known = space(method.name) if method.name in TUNED else {}
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
        "space": {name: [d.low, d.high] for name, d in known.items()},
        "nan": health.nan,
        "problems": health.problems,
        "note": method.note,
    }


def tables(lines: Sequence[Line]) -> tuple[Table, Table]:
    """Two tables for 80 columns: what a step costs and how sound it is; what it is and needs."""
    timed = any(line["time_ratio"] for line in lines)
    costs = _grid("method", "order", "calls", "cost", *(["time"] if timed else []), "NaN", "health")
    facts = _grid("method", "needs", "from, paper")
    facts.columns[1].max_width = 20  # so that every class is in one piece in 80 columns
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
    """A table that folds what has no room, and leaves out nothing."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in names:
        number = name in ("calls", "cost", "time")
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    return grid


def remarks(lines: Sequence[Line]) -> Text:
    """What is wrong with whom, then the notes."""
    text = Text()
    for line in lines:
        for problem in line["problems"]:
            text.append(f"{line['name']}: {problem}\n", "red")
    for line in lines:
        if line["version"] is None:
            extra = METHODS[line["name"]].source.extra
            text.append(f"{line['name']}: pip install 'f3eo[{extra}]' brings it\n")
        if line["note"]:
            text.append(f"{line['name']}: {line['note']}\n")
    return text


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


NOTE = (
    "Cost of a step in plain gradients: the matrix products it makes of a batch over those of one "
    "forward and one backward pass, counted; a double backward counts what it makes. Calls: of the "
    "closure. NaN: what such a loss does to the weights. Health: see `f3eo.bench.methods.health`."
)
