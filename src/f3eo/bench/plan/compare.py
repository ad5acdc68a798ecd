"""A comparison: given methods on given tasks over seeds, at equal cost or at equal time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from f3eo.bench.execute import disk
from f3eo.bench.execute.resume import Carried, carry_out
from f3eo.bench.execute.store import Store
from f3eo.bench.methods import METHODS, USUAL
from f3eo.bench.plan.checks import check_counts, check_folder, check_names, check_setting
from f3eo.bench.plan.runs import planned
from f3eo.bench.price.prices import prices, step_kind
from f3eo.bench.report.comparison_page import write_report
from f3eo.bench.report.standings import EQUALS, standings, table
from f3eo.bench.run.place import resolved
from f3eo.bench.run.run import Equal, Run
from f3eo.bench.tasks import TASKS, Task
from f3eo.bench.tasks import USUAL as USUAL_TASKS

SHORT = 1_250
"""The largest default budget of a run, in plain gradients; a study takes each task's own."""


@dataclass(frozen=True)
class Comparison:
    """The plan of a comparison and the folder of its results.

    Args:
        name: name of the folder below `folder`; a second comparison of this name resumes the
            first; default "compare".
        tasks: names of tasks; default `tasks.USUAL`.
        methods: names of methods; default `methods.USUAL`.
        seeds: number of runs per method and task, with seeds 0, 1, …; default 3.
        budget: plain gradients per run, or the time of that many plain gradient steps; default
            None, each task's own, at most SHORT.
        equal: what every method may spend the same amount of: "cost", counted in plain gradients,
            or "time", with each step at its measured price; both take separate runs. Default
            ("cost",).
        overrides: hyper-parameters by method, in place of the tuned ones; default none.
        workers: number of processes, with one torch thread each; default 2.
        device: "cpu", "cuda", "cuda:N", or "auto" for the GPU where there is one; default "cpu".
        precision: "float32", or "bf16" for autocast; default "float32".
        folder: parent of the comparison's folder; default "runs".
        keep: whether the trained models are kept, in `models` in its folder; default False.
        command: the command line, stored in every row; default empty.

    Raises:
        ValueError: an unknown name, a number out of range, or an override without effect.
    """

    name: str = "compare"
    tasks: Sequence[str] = USUAL_TASKS
    methods: Sequence[str] = USUAL
    seeds: int = 3
    budget: int | None = None
    equal: Sequence[Equal] = ("cost",)
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: int = 2
    device: str = "cpu"
    precision: str = "float32"
    folder: Path = Path("runs")
    keep: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        check_folder("comparison", self.name)
        resolved(self.device, self.precision)
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
        """The folder of the comparison."""
        return self.folder / self.name

    @property
    def models(self) -> Path | None:
        """The folder of the checkpoints, TASK-METHOD-SEED.pt; None if they are not kept."""
        return self.path / "models" if self.keep else None

    @property
    def report(self) -> Path:
        """The page; written if there is any row."""
        return self.path / "report.html"

    def runs(self, prices: Mapping[str, float] | None = None) -> list[Run]:
        """Every run, ordered by seed, so that an early end leaves equal numbers of seeds.

        Args:
            prices: time of a step in plain gradient steps, by `step_kind`; needed if `equal`
                names time.
        """
        place = resolved(self.device, self.precision)
        plain = [
            planned(
                task,
                method,
                self.budget or min(task.budget, SHORT),
                self._options(task, method),
                place,
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


def compare(comparison: Comparison, console: Console) -> Carried:
    """Carry out the runs that have no row yet, and write the report.

    Args:
        comparison: the plan.
        console: shows the progress and, at equal time, the standings.
    """
    disk.prepare(comparison.models or comparison.path)
    carried = carry_out(
        comparison.runs(_measure_prices(comparison, console)),
        Store(comparison.path),
        console,
        workers=comparison.workers,
        command=comparison.command,
        keep=comparison.models,
    )
    if carried.rows:
        write_report(carried.rows, comparison.report, comparison.name)
    if "time" in comparison.equal:
        for task in comparison.tasks:
            console.print(table(standings(carried.rows, task), task))
    return carried


def _measure_prices(comparison: Comparison, console: Console) -> dict[str, float] | None:
    """The price of every kind of step, timed before the runs; None without equal time."""
    if "time" not in comparison.equal:
        return None
    plain = replace(comparison, equal=("cost",), seeds=1)
    return prices(plain.runs(), comparison.path / "prices.json", console.print)
