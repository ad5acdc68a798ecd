"""A study as it lies in its folder: results, trials, and what was asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from f3eo.bench.execute import archive, disk
from f3eo.bench.execute.store import read
from f3eo.bench.methods import METHODS
from f3eo.bench.plan.study import check_asked
from f3eo.bench.price.prices import check_prices
from f3eo.bench.run.metrics import ACCURACY, TEST_LOSS, Metric
from f3eo.bench.run.row import Row
from f3eo.bench.tasks import TASKS

SENSITIVITY = "sensitivity"
"""Variants whose label begins so are points of the grids of learning rate and weight."""

AWAY = "put the original back, or move it away: the report then does without"
"""What to do about a damaged study.json or prices.json."""


@dataclass(frozen=True)
class Findings:
    """Everything a report is made of.

    Args:
        name: of the study.
        results: rows on the test set, one per key, variants included.
        trials: rows of the tuning; default none.
        asked: `study.json`; default nothing.
        prices: `prices.json`; default nothing.
        damaged: what was passed over in reading, in sentences; default nothing.
    """

    name: str
    results: Sequence[Row]
    trials: Sequence[Row] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    prices: Any = None
    damaged: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "results", sorted(self.results, key=self._place))

    def _place(self, row: Row) -> tuple[Any, ...]:
        """The order in which a study asks for its rows."""
        tasks, methods = (list(self.asked.get("tasks") or TASKS), list(METHODS))
        task, method = row["task"], row["method"]
        listed = [*tasks, task].index(task), [*methods, method].index(method)
        return listed[0], task, listed[1], method, row["variant"], row["seed"], row["key"]

    @property
    def rows(self) -> list[Row]:
        """The results of the methods themselves, without variants."""
        return [row for row in self.results if not row["variant"]]

    @property
    def ablation(self) -> list[Row]:
        """The results of variants that are no points of a grid."""
        variants = [row for row in self.results if row["variant"]]
        return [row for row in variants if not row["variant"].startswith(SENSITIVITY)]

    @property
    def sensitivity(self) -> list[Row]:
        """The results on grids of learning rate and weight."""
        return [row for row in self.results if row["variant"].startswith(SENSITIVITY)]

    @property
    def tasks(self) -> list[str]:
        """The tasks of the results, in the order they were asked for."""
        return list(dict.fromkeys(row["task"] for row in self.rows))

    @property
    def methods(self) -> list[str]:
        """The methods of the results, in the order they are listed in."""
        order = list(METHODS)
        found = dict.fromkeys(row["method"] for row in self.rows)
        return sorted(found, key=lambda name: [*order, name].index(name))

    def metric(self, task: str) -> Metric:
        """What a task is scored by; accuracy for one nobody knows."""
        return TEST_LOSS if self._said(task, "score") == "loss" else ACCURACY

    def target(self, task: str) -> float | None:
        """The score that counts as reached, in the unit that is shown."""
        found = self._said(task, "target")
        return None if found is None else found * self.metric(task).factor

    def description(self, task: str) -> str:
        """A task in a line, with the files it was read from where there is more than one choice."""
        own = (row for row in self.rows if row["task"] == task)
        read = sorted({row["source"] for row in own if row.get("source")})
        return "; ".join([self._said(task, "description") or "", *read])

    @property
    def unit(self) -> str:
        """Of nominal time: seconds, where they are known for every task."""
        known = all(task in self._milliseconds for task in self.tasks)
        return "seconds" if known else "plain gradient steps"

    def second(self, task: str) -> float:
        """What a plain gradient step takes, in `unit`."""
        return self._milliseconds[task] / 1000 if self.unit == "seconds" else 1.0

    @property
    def _milliseconds(self) -> Mapping[str, float]:
        return (self.prices or {}).get("plain_ms", {})

    def _said(self, task: str, name: str) -> Any:
        """What the study says of a task, or, failing that, this version."""
        said = (self.asked.get("tasks") or {}).get(task, {})
        return said.get(name, getattr(TASKS.get(task), name, None))


def load(folder: Path) -> Findings:
    """Read a study; what has no file is empty.

    Raises:
        ValueError: the folder holds no results.
    """
    damaged: list[str] = []
    results, trials = (_rows(folder, name, damaged) for name in ("results", "trials"))
    if not results:
        raise ValueError(
            f"no results in {folder}: a study's folder holds results.jsonl or results.parquet, "
            "which `f3eo bench` writes"
        )
    asked = disk.read_json(folder / "study.json", AWAY, check_asked)
    prices = disk.read_json(folder / "prices.json", AWAY, check_prices)
    return Findings(folder.resolve().name, results, trials, asked, prices, damaged)


def _rows(folder: Path, name: str, damaged: list[str]) -> list[Row]:
    """The newest row of each key."""
    rows, junk = read(lines := folder / f"{name}.jsonl")
    if junk:
        damaged.append(
            f"{lines} has {len(junk)} damaged line(s), which are left out; "
            "`f3eo bench` of that name moves them away and repeats their runs."
        )
    found = archive.read(folder / f"{name}.parquet") + rows
    return list({row["key"]: {"variant": "", "kind": "result", **row} for row in found}.values())
