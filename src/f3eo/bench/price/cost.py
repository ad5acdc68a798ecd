"""`f3eo cost`: time and memory of every variant, model by model."""

import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.status import Status

from f3eo.bench.execute.disk import prepare_file, write
from f3eo.bench.models import MODELS, USUAL
from f3eo.bench.plan.checks import check_counts, check_names
from f3eo.bench.price.memory import measure_memory
from f3eo.bench.price.row import CostRow, rows
from f3eo.bench.price.table import NOTE, table
from f3eo.bench.price.timing import Effort, Runner, Timing, clock_for, threads, time_rounds
from f3eo.bench.price.variants import GRADIENT, SEED, VARIANTS
from f3eo.bench.price.work import start
from f3eo.bench.run.place import Place, resolved

FEWEST = 5
"""Rounds that are taken whatever time they need."""
SECONDS = 60.0
"""Default time for the rounds of a model."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Args:
        models: names of models; default the usual four.
        methods: names of variants; default all. The plain gradient, the reference, is always added.
        rounds: measurements of each variant; default None: as many as fit into `seconds`.
        seconds: time for the rounds of a model, warm-up included, unless `rounds` is given;
            default None: SECONDS.
        threads: number of torch's threads; default 1.
        memory: whether to measure memory; default True.
        device: "cpu", "cuda", "cuda:N", or "auto" for the GPU where there is one; default "cpu".
        precision: "float32", or "bf16" for autocast; default "float32".
        file: file that receives the rows as JSON; default None.

    Raises:
        ValueError: an unknown name, a number out of range, a folder that does not exist.
    """

    models: Sequence[str] = USUAL
    methods: Sequence[str] = tuple(VARIANTS)
    rounds: int | None = None
    seconds: float | None = None
    threads: int = 1
    memory: bool = True
    device: str = "cpu"
    precision: str = "float32"
    file: Path | None = None

    def __post_init__(self) -> None:
        check_names("model", dict.fromkeys(self.models), MODELS)
        check_names("method", dict.fromkeys(self.methods), VARIANTS)
        resolved(self.device, self.precision)
        check_counts(rounds=self.rounds, threads=self.threads)
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds must be more than 0, got {self.seconds}")
        if self.seconds is not None and self.rounds is not None:
            raise ValueError(
                f"seconds={self.seconds:g} has no effect beside rounds={self.rounds}, which fixes "
                "the number of measurements; give one of them"
            )
        if self.file:
            prepare_file(self.file)

    @property
    def place(self) -> Place:
        """Where the steps run."""
        return resolved(self.device, self.precision)

    @property
    def contenders(self) -> list[str]:
        """Names of the variants, each once, the plain gradient first."""
        return list(dict.fromkeys((GRADIENT.name, *self.methods)))


@dataclass
class Outcome:
    """Result of a measurement.

    Args:
        rows: rows of every variant on every model that was reached.
        interrupted: whether Ctrl-C ended it.
    """

    rows: list[CostRow] = field(default_factory=list)
    interrupted: bool = False


def measure_cost(plan: Plan, console: Console) -> Outcome:
    """Measure every model, print its table when it is done, and write the rows.

    Ctrl-C ends the measurement; what was measured until then is printed and written.
    """
    outcome = Outcome()
    with threads(plan.threads):
        for name in dict.fromkeys(plan.models):
            timing, memory, errors = Timing(), dict[str, int](), dict[str, str]()
            try:
                with console.status(f"{name} …") as status:
                    _time(plan, name, timing, status)
                    if plan.memory:
                        _measure_memory(plan, name, timing.errors, memory, errors, status)
            except KeyboardInterrupt:
                outcome.interrupted = True
            if timing.rounds or timing.errors:
                measured = rows(MODELS[name], plan.contenders, timing, memory, errors, plan.place)
                outcome.rows += measured
                try:
                    if plan.file:
                        text = json.dumps(outcome.rows, indent=1, ensure_ascii=False)
                        write(plan.file, text + "\n")
                finally:  # shown even if the file cannot be written
                    console.print(table(measured))
            if outcome.interrupted:
                break
    if outcome.rows:
        console.print(NOTE, style="dim")
    return outcome


def _time(plan: Plan, name: str, timing: Timing, status: Status) -> None:
    """Time rounds of one model into `timing`."""
    begin, seconds = time.monotonic(), plan.seconds or SECONDS
    runners: dict[str, Runner] = {}
    for method in plan.contenders:
        try:
            work = start(MODELS[name], VARIANTS[method], MODELS[name].batch, plan.place)
            work.prepare(VARIANTS[method].prepared * VARIANTS[method].steps)
        except Exception as error:
            timing.errors[method] = f"{type(error).__name__}: {error}"
        else:
            runners[method] = Runner(work.step, VARIANTS[method].steps)
    rounds = plan.rounds
    effort = Effort(rounds, rounds) if rounds else Effort(FEWEST, seconds=seconds)

    def tell(count: int, passed: float) -> None:
        aim = f"of {rounds}" if rounds else f"in {passed:.0f} of {seconds:.0f} s"
        status.update(f"{name}: {count} rounds {aim}")

    generator, clock = random.Random(SEED), clock_for(plan.threads, plan.place)
    time_rounds(runners, timing, effort, generator=generator, clock=clock, begin=begin, tell=tell)


def _measure_memory(
    plan: Plan,
    name: str,
    failed: Mapping[str, str],
    memory: dict[str, int],
    errors: dict[str, str],
    status: Status,
) -> None:
    """Measure memory in bytes into `memory`, unless the variant has failed before."""
    for method in plan.contenders:
        if method in failed:
            continue
        status.update(f"{name}: memory of {method}")
        try:
            memory[method] = measure_memory(name, method, plan.threads, plan.place)
        except RuntimeError as error:
            errors[method] = str(error)
