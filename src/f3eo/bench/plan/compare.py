"""Compare methods on tasks over seeds at equal cost or time, and keep what is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from f3eo.bench.execute import disk
from f3eo.bench.execute.resume import carry_out
from f3eo.bench.execute.store import Store
from f3eo.bench.methods import METHODS, USUAL
from f3eo.bench.plan.given import check_counts, check_folder, check_names, check_setting
from f3eo.bench.price.prices import prices, step_kind
from f3eo.bench.report.comparison_page import write_report
from f3eo.bench.report.ranking import EQUALS, ranking, table
from f3eo.bench.run.row import Row
from f3eo.bench.run.run import Equal, Run
from f3eo.bench.tasks import TASKS, Task
from f3eo.bench.tasks import USUAL as USUAL_TASKS

SHORT = 2_500
"""Plain gradients in a run unless something else is asked for: a look, where a study is longer."""


@dataclass(frozen=True)
class Comparison:
    """What to compare, and where it is kept.

    Args:
        name: the folder below `folder`; a second comparison of this name resumes.
        tasks: names of tasks.
        methods: names of methods.
        seeds: runs of each method on each task, with seeds 0, 1, …
        budget: plain gradients per run, or the time of so many; None takes each task's own, at
            most SHORT.
        equal: what every method may spend the same amount of: "cost", counted in plain gradients,
            "time", each step at its measured price, or both, which takes runs of its own for each.
        overrides: hyper-parameters by method, over the tuned ones.
        workers: processes, with one torch thread each.
        folder: parent of the comparison's folder.
        command: what was typed, for the record.

    Raises:
        ValueError: a name nobody knows, a number out of range, an override without an effect.
    """

    name: str = "compare"
    tasks: Sequence[str] = USUAL_TASKS
    methods: Sequence[str] = USUAL
    seeds: int = 3
    budget: int | None = None
    equal: Sequence[Equal] = ("cost",)
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: int = 2
    folder: Path = Path("runs")
    command: str = ""

    def __post_init__(self) -> None:
        check_folder("comparison", self.name)
        check_names("task", self.tasks, TASKS)
        check_names("method", self.methods, METHODS)
        check_names("kind of equality", self.equal, dict.fromkeys(EQUALS))
        check_names("method", self.overrides, METHODS, may_be_empty=True)
        check_counts(seeds=self.seeds, workers=self.workers, budget=self.budget)
        for method, given in self.overrides.items():
            if method not in self.methods:
                raise ValueError(
                    f"{method}.{next(iter(given), '')} has no effect: {method} is not among the "
                    f"methods, {', '.join(self.methods)}; add it there"
                )
            for task in self.tasks:
                options = self._options(TASKS[task], method)
                for name, value in given.items():
                    check_setting(METHODS[method], name, value, options)

    @property
    def path(self) -> Path:
        """The folder of this comparison."""
        return self.folder / self.name

    def runs(self, prices: Mapping[str, float] | None = None) -> list[Run]:
        """Every run, seed by seed, so that an early end leaves equal numbers of seeds.

        Args:
            prices: time of a step by `step_kind`, in plain gradient steps; asked for if `equal`
                names time.
        """
        plain = [
            Run(
                task=task.name,
                method=method,
                seed=0,
                budget=self.budget or min(task.budget, SHORT),
                batch=task.batch,
                options=self._options(task, method),
                evaluations=task.evaluations,
                probe=task.probe,
            )
            for task in map(TASKS.__getitem__, self.tasks)
            for method in self.methods
        ]
        return [
            replace(
                run, seed=seed, price=(prices or {})[step_kind(run)] if kind == "time" else None
            )
            for seed in range(self.seeds)
            for kind in self.equal
            for run in plain
        ]

    def _options(self, task: Task, method: str) -> dict[str, Any]:
        """All options of a method on a task."""
        return METHODS[method].options(task.options.get(method, {}), self.overrides.get(method, {}))


@dataclass(frozen=True)
class Outcome:
    """How a comparison ended.

    Attributes:
        rows: its rows, earlier ones included.
        trained: runs carried out just now.
        missing: runs that are still to be done.
        failure: the error of the last run if all of them failed, else None.
        report: the page; written if there is any row.
    """

    rows: list[Row]
    trained: int
    missing: int
    failure: str | None
    report: Path


def compare(comparison: Comparison, console: Console) -> Outcome:
    """Carry out the runs that are not there yet, and write the report; see `carry_out`."""
    disk.prepare(comparison.path)
    carried = carry_out(
        comparison.runs(_prices(comparison, console)),
        Store(comparison.path),
        console,
        workers=comparison.workers,
        command=comparison.command,
    )
    report = comparison.path / "report.html"
    if carried.rows:
        write_report(carried.rows, report, comparison.name)
    if "time" in comparison.equal:
        for task in comparison.tasks:
            console.print(table(ranking(carried.rows, task), task))
    return Outcome(carried.rows, carried.trained, carried.missing, carried.failure, report)


def _prices(comparison: Comparison, console: Console) -> dict[str, float] | None:
    """What a step takes, if that is needed; measured before the runs, while all is quiet."""
    if "time" not in comparison.equal:
        return None
    plain = replace(comparison, equal=("cost",), seeds=1)
    return prices(plain.runs(), comparison.path / "prices.json", console.print)
