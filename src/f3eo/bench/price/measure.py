"""Measure what steps cost: model by model, all methods of a model interleaved."""

import json
import math
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.status import Status

from f3eo.bench.execute.disk import prepare_file, write
from f3eo.bench.models import MODELS, USUAL
from f3eo.bench.price.memory import measured
from f3eo.bench.price.methods import GRADIENT, METHODS
from f3eo.bench.price.row import Row, rows
from f3eo.bench.price.table import NOTE, table
from f3eo.bench.price.timing import Runner, Timing, clock_for, interleave, threads
from f3eo.bench.price.work import SEED, start

FEWEST = 5
"""Rounds that are taken even if there is no time for them."""
SECONDS = 60.0
"""Time for the rounds of a model, where nothing else is said."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Args:
        models, methods: names; the plain gradient, which all is compared with, always comes along.
        rounds: measurements of each method; None takes as many as fit into `seconds`.
        seconds: time for the rounds of a model, warm-up included, without `rounds`;
            None is SECONDS.
        threads: torch may use.
        memory: whether to measure it.
        file: where rows go as JSON, or None.

    Raises:
        ValueError: a name nobody knows, a number out of range, a folder that does not exist.
    """

    models: Sequence[str] = USUAL
    methods: Sequence[str] = tuple(METHODS)
    rounds: int | None = None
    seconds: float | None = None
    threads: int = 1
    memory: bool = True
    file: Path | None = None

    def __post_init__(self) -> None:
        _check("model", self.models, MODELS)
        _check("method", self.methods, METHODS)
        for name in ("rounds", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds must be more than 0, got {self.seconds}")
        if self.seconds is not None and self.rounds is not None:
            raise ValueError(
                f"seconds={self.seconds:g} has no effect beside rounds={self.rounds}, which says "
                "how often is measured; give one of them"
            )
        if self.file:
            prepare_file(self.file)

    @property
    def contenders(self) -> list[str]:
        """Names of the methods, each once, the plain gradient first."""
        return list(dict.fromkeys((GRADIENT.name, *self.methods)))


@dataclass
class Outcome:
    """What came of it.

    Args:
        rows: of every method on every model that was reached.
        interrupted: whether Ctrl-C ended it.
    """

    rows: list[Row] = field(default_factory=list)
    interrupted: bool = False


def measure(plan: Plan, console: Console) -> Outcome:
    """Measure, print a table per model as soon as it is there, and write the rows.

    Ctrl-C ends it; what was measured by then is printed and written all the same.
    """
    outcome = Outcome()
    with threads(plan.threads):
        for name in dict.fromkeys(plan.models):
            timing, memory, errors = Timing(), dict[str, int](), dict[str, str]()
            try:
                with console.status(f"{name} …") as status:
                    _time(plan, name, timing, status)
                    if plan.memory:
                        _weigh(plan, name, timing.errors, memory, errors, status)
            except KeyboardInterrupt:
                outcome.interrupted = True
            if timing.rounds or timing.errors:
                found = rows(MODELS[name], plan.contenders, timing, memory, errors)
                outcome.rows += found
                try:
                    if plan.file:
                        text = json.dumps(outcome.rows, indent=1, ensure_ascii=False)
                        write(plan.file, text + "\n")
                finally:  # a file that cannot be written is no reason to show nothing
                    console.print(table(found))
            if outcome.interrupted:
                break
    if outcome.rows:
        console.print(NOTE, style="dim")
    return outcome


def _time(plan: Plan, name: str, timing: Timing, status: Status) -> None:
    """Rounds into `timing`, until there are enough."""
    begin, seconds = time.monotonic(), plan.seconds or SECONDS
    runners: dict[str, Runner] = {}
    for method in plan.contenders:
        try:
            work = start(MODELS[name], METHODS[method], MODELS[name].batch)
            work.prepare(METHODS[method].prepared * METHODS[method].steps)
        except Exception as error:
            timing.errors[method] = f"{type(error).__name__}: {error}"
        else:
            runners[method] = Runner(work.step, METHODS[method].steps)
    counts = interleave(
        runners, timing, generator=random.Random(SEED), clock=clock_for(plan.threads)
    )
    with closing(counts):
        for count in counts:
            passed = time.monotonic() - begin
            aim = f"of {plan.rounds}" if plan.rounds else f"in {passed:.0f} of {seconds:.0f} s"
            status.update(f"{name}: {count} rounds {aim}")
            if count >= (plan.rounds or FEWEST) and (plan.rounds or passed >= seconds):
                break


def _weigh(
    plan: Plan,
    name: str,
    lost: Mapping[str, str],
    memory: dict[str, int],
    errors: dict[str, str],
    status: Status,
) -> None:
    """Bytes into `memory`, errors into `errors`, for methods that are not lost."""
    for method in plan.contenders:
        if method in lost:
            continue
        status.update(f"{name}: memory of {method}")
        try:
            memory[method] = measured(name, method, plan.threads)
        except RuntimeError as error:
            errors[method] = str(error)


def _check(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    known, names = list(known), list(names)
    if not names:
        raise ValueError(f"no {kind} given; choose from {', '.join(known)}")
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; choose from {', '.join(known)}")
