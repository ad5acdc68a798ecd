"""`f3eo cost`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from f3eo.bench.price import USUAL as USUAL_MODELS
from f3eo.bench.price import VARIANTS, Plan, measure_cost
from f3eo.bench.price.cost import SECONDS
from f3eo.cli.app import Output, app, tell
from f3eo.cli.guard import FAILED, INTERRUPTED

TIME = f"(default: {SECONDS:g})"
TIMED = "(default: as many as fit into --seconds)"


@app.command
def cost(
    models: Annotated[tuple[str, ...], arg(metavar="MODEL ...")] = USUAL_MODELS,
    methods: Annotated[tuple[str, ...], arg(metavar="METHOD ...")] = tuple(VARIANTS),
    rounds: Annotated[int | None, arg(metavar="N", help_behavior_hint=TIMED)] = None,
    seconds: Annotated[float | None, arg(metavar="S", help_behavior_hint=TIME)] = None,
    threads: Annotated[int, arg(metavar="N")] = 1,
    memory: bool = True,
    file: Annotated[Path | None, arg(name="json", metavar="FILE", help_behavior_hint="")] = None,
) -> int:
    """Print what a step costs, in time and memory, next to a plain gradient step.

    Every round runs each method once, in random order, so that all see the same disturbances.
    With one thread, time is the processor's, without what other programs take. Peak memory is
    measured afterwards, in a fresh process for each method. The defaults take about seven minutes.
    Ctrl-C prints what is finished.

    Args:
        models: What to measure on; resnet20 and gpt256 may be asked for.
        methods: What to measure; the plain gradient always comes along.
        rounds: Measurements of each method.
        seconds: Time for the rounds of each model, instead of --rounds.
        threads: Threads of torch.
        memory: Whether to measure memory, too.
        file: File to write the rows to.
    """
    plan = Plan(
        models=models,
        methods=methods,
        rounds=rounds,
        seconds=seconds,
        threads=threads,
        memory=memory,
        file=file,
    )
    outcome = measure_cost(plan, Output())
    if outcome.interrupted:
        return INTERRUPTED
    if all(row["time_ratio"] is None for row in outcome.rows):
        tell("Error: nothing could be measured; the errors stand below the tables")
        return FAILED
    return 0
