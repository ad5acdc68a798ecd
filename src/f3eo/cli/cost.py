"""`f3eo cost`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from f3eo.bench.models import MODELS
from f3eo.bench.price import USUAL as USUAL_MODELS
from f3eo.bench.price import VARIANTS, Plan, measure_cost
from f3eo.bench.price.cost import SECONDS
from f3eo.cli.app import NO_FILE, Device, InPrecision, Output, app, tell
from f3eo.cli.guard import FAILED, INTERRUPTED

MODEL_NAMES = f"Models, from: {' '.join(MODELS)}."
TIME = f"(default: {SECONDS:g})"
TIMED = "(default: as many as fit into --seconds)"


@app.command
def cost(
    models: Annotated[tuple[str, ...], arg(metavar="MODEL ...", help=MODEL_NAMES)] = USUAL_MODELS,
    methods: Annotated[tuple[str, ...], arg(metavar="METHOD ...")] = tuple(VARIANTS),
    rounds: Annotated[int | None, arg(metavar="N", help_behavior_hint=TIMED)] = None,
    seconds: Annotated[float | None, arg(metavar="S", help_behavior_hint=TIME)] = None,
    threads: Annotated[int, arg(metavar="N")] = 1,
    memory: bool = True,
    device: Device = "cpu",
    precision: InPrecision = "float32",
    file: Annotated[
        Path | None, arg(name="json", metavar="FILE", help_behavior_hint=NO_FILE)
    ] = None,
) -> int:
    """Measure the time and memory of a step, relative to a plain gradient step.

    Every round runs each method once, in random order, so that disturbances affect all methods
    alike. With one thread, time is processor time, without the share of other programs; on a GPU it
    is wall time, until all work there is done. Peak memory is measured afterwards, in a fresh
    process per method. The defaults take about eight minutes. Ctrl-C prints the finished
    measurements.

    Args:
        models: Names of models.
        methods: Methods, from those of the default; the plain gradient is always measured.
        rounds: Rounds per model, each with one measurement of every method; at least 1.
        seconds: Time for the rounds of each model, in seconds, in place of --rounds.
        threads: Number of torch threads; at least 1.
        memory: Also measure peak memory.
        file: JSON file that receives the rows.
    """
    plan = Plan(
        models=models,
        methods=methods,
        rounds=rounds,
        seconds=seconds,
        threads=threads,
        memory=memory,
        device=device,
        precision=precision,
        file=file,
    )
    outcome = measure_cost(plan, Output())
    if outcome.interrupted:
        return INTERRUPTED
    if all(row["time_ratio"] is None for row in outcome.rows):
        tell("Error: no measurement succeeded; see the errors below the tables")
        return FAILED
    return 0
