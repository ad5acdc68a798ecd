"""The data of a study, read from its folder: results, trials, configuration and prices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from f3eo.bench.execute import disk
from f3eo.bench.methods import METHODS
from f3eo.bench.plan.manifest import check_asked
from f3eo.bench.price.prices import check_prices
from f3eo.bench.report.stored import stored
from f3eo.bench.run.metrics import ACCURACY, TEST_LOSS, Metric
from f3eo.bench.run.row import Row
from f3eo.bench.tasks import TASKS

SENSITIVITY = "sensitivity"
"""Label prefix of the variants on the grids of learning rate and strength."""

CURE = "restore the original, or move it away: the report then does without it"
"""Advice in the error about a damaged study.json or prices.json."""


@dataclass(frozen=True)
class StudyData:
    """The data of a study.

    Args:
        name: name of the study.
        results: rows on the test set, one per key, variants included.
        trials: rows of the tuning; default none.
        asked: content of `study.json`; default empty.
        prices: content of `prices.json`; default None.
        damaged: one sentence per file with damaged lines; default none.
    """

    name: str
    results: Sequence[Row]
    trials: Sequence[Row] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    prices: Any = None
    damaged: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "results", sorted(self.results, key=self._position))

    def _position(self, row: Row) -> tuple[Any, ...]:
        """The sort key: task, method, variant, seed."""
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
        """The results of variants outside the grids."""
        variants = [row for row in self.results if row["variant"]]
        return [row for row in variants if not row["variant"].startswith(SENSITIVITY)]

    @property
    def sensitivity(self) -> list[Row]:
        """The results of variants on the grids of learning rate and strength."""
        return [row for row in self.results if row["variant"].startswith(SENSITIVITY)]

    @property
    def tasks(self) -> list[str]:
        """The tasks of the results, in the order of the study."""
        return list(dict.fromkeys(row["task"] for row in self.rows))

    @property
    def methods(self) -> list[str]:
        """The methods of the results, in registry order, unknown ones last."""
        order = list(METHODS)
        names = dict.fromkeys(row["method"] for row in self.rows)
        return sorted(names, key=lambda name: [*order, name].index(name))

    def bases(self, method: str) -> dict[str, str]:
        """The base optimizer that a method wraps, by task; empty for one that wraps none."""
        own = [row for row in self.rows if row["method"] == method]
        options = {row["task"]: row["config"]["options"] for row in own}
        return {task: found["base"] for task, found in options.items() if found.get("base")}

    def metric(self, task: str) -> Metric:
        """The score of a task; accuracy for an unknown task."""
        return TEST_LOSS if self._property(task, "score") == "loss" else ACCURACY

    def target(self, task: str) -> float | None:
        """The target score of a task, in the unit of `metric`; None for an unknown task."""
        target = self._property(task, "target")
        return None if target is None else target * self.metric(task).factor

    def description(self, task: str) -> str:
        """A task in one line, with the sources of its data where these can differ."""
        own = (row for row in self.rows if row["task"] == task)
        sources = sorted({row["source"] for row in own if row.get("source")})
        return "; ".join([self._property(task, "description") or "", *sources])

    @property
    def unit(self) -> str:
        """The unit of nominal time: seconds where prices give them for every task."""
        known = all(task in self._milliseconds for task in self.tasks)
        return "seconds" if known else "plain gradient steps"

    def second(self, task: str) -> float:
        """The time of a plain gradient step on a task, in `unit`."""
        return self._milliseconds[task] / 1000 if self.unit == "seconds" else 1.0

    @property
    def _milliseconds(self) -> Mapping[str, float]:
        return (self.prices or {}).get("plain_ms", {})

    def _property(self, task: str, name: str) -> Any:
        """A property of a task from `study.json`, else from this version's registry."""
        recorded = (self.asked.get("tasks") or {}).get(task, {})
        return recorded.get(name, getattr(TASKS.get(task), name, None))


def load(folder: Path) -> StudyData:
    """Read a study from its folder; files that are absent give empty entries.

    Raises:
        ValueError: the folder holds no results, or a file is damaged.
    """
    damaged: list[str] = []
    results, trials = (_rows(folder, name, damaged) for name in ("results", "trials"))
    if not results:
        raise ValueError(
            f"no results in {folder}: a study's folder holds results.jsonl or results.parquet, "
            "which `f3eo bench` writes"
        )
    asked = disk.read_json(folder / "study.json", CURE, check_asked)
    prices = disk.read_json(folder / "prices.json", CURE, check_prices)
    return StudyData(folder.resolve().name, results, trials, asked, prices, damaged)


def _rows(folder: Path, name: str, damaged: list[str]) -> list[Row]:
    """The stored rows; those from before there were variants or kinds get both."""
    rows = stored(folder, name, damaged, "f3eo bench")
    return [{"variant": "", "kind": "result", **row} for row in rows]
