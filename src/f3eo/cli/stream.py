"""`f3eo stream`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from f3eo.bench.continual.learners import PEERS
from f3eo.bench.continual.plan.carry import carry_out_study
from f3eo.bench.continual.plan.standings import table
from f3eo.bench.continual.plan.study import QUICK, USUAL, StreamStudy
from f3eo.bench.continual.report import write
from f3eo.bench.continual.run.stream_run import EQUALS
from f3eo.bench.continual.streams import STREAMS
from f3eo.cli.app import ALL, Output, app, tell, tell_end, tell_failures, typed

BOTH = "both"


def _shown(value: Any) -> str:
    if value is None or value in (tuple(PEERS), tuple(STREAMS)):
        return ALL
    return BOTH if value == EQUALS else " ".join(value) if isinstance(value, tuple) else str(value)


def _option(name: str, metavar: str, text: str) -> Any:
    """An option with a default in USUAL and another in QUICK."""
    defaults = f"(default: {_shown(USUAL[name])}; with --quick {_shown(QUICK[name])})"
    return arg(metavar=metavar, help=text, help_behavior_hint=defaults)


@app.command
def stream(
    streams: Positional[
        Annotated[
            tuple[str, ...],
            _option("streams", "STREAM ...", f"Streams, from: {' '.join(STREAMS)}; or all."),
        ]
    ] = (),
    learners: Annotated[
        tuple[str, ...],
        _option("learners", "LEARNER ...", f"Learners, from: {' '.join(PEERS)}; or all."),
    ] = (),
    name: Annotated[
        str | None,
        _option(
            "name", "NAME", "Name of the study, a folder below --folder. An existing one resumes."
        ),
    ] = None,
    trials: Annotated[
        int | None,
        _option(
            "trials",
            "N",
            "Settings tried per learner and stream, the default among them; at least 1.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        _option("seeds", "N", "Results per learner and stream, one per seed; at least 1."),
    ] = None,
    stages: Annotated[
        int | None, _option("stages", "N", "Stages of each stream, from the first on; at least 1.")
    ] = None,
    samples: Annotated[
        int | None, _option("samples", "N", "Training samples of each stage; at least 1.")
    ] = None,
    tests: Annotated[
        int | None,
        _option("tests", "N", "Samples of each stage to judge on, drawn by the seed; at least 1."),
    ] = None,
    equal: Annotated[
        Literal["steps", "time", "both"] | None,
        _option(
            "equal",
            "steps|time|both",
            "What learners spend equally: steps; time, with each step at its measured price; or "
            "both in separate runs.",
        ),
    ] = None,
    workers: Annotated[int, arg(metavar="N")] = 2,
    minutes: Annotated[
        float | None, arg(metavar="M", help_behavior_hint="(default: no limit)")
    ] = None,
    folder: Annotated[Path, arg(metavar="PATH")] = Path("runs"),
    quick: bool = False,
) -> int:
    """Train learners on streams of tasks, and measure what they forget and what they carry over.

    Every learner is tuned on as many settings, on held-out samples of the first stages; then it
    runs at the best of them on fresh seeds. After each stage it is judged on the test sets of all
    stages, and its trace and free energy are measured; on stages of the same family that it never
    trains on, its score after 0, 1, 5 and 20 steps. The report is FOLDER/NAME/report.html, one
    page that needs no network; its rows are in results.jsonl and results.parquet beside it.
    --quick takes less than three minutes on two cores. Ctrl-C keeps finished runs; the same
    command resumes.

    Args:
        workers: Number of processes, one torch thread each; at least 1.
        minutes: Time in minutes after which no further run starts, above 0.
        folder: Folder that holds the studies.
        quick: Take the defaults of a small study.
    """
    given = {
        "streams": tuple(STREAMS) if streams == (ALL,) else streams,
        "learners": tuple(PEERS) if learners == (ALL,) else learners,
        "name": name,
        "trials": trials,
        "seeds": seeds,
        "stages": stages,
        "samples": samples,
        "tests": tests,
        "equal": EQUALS if equal == BOTH else equal and (equal,),
    }
    asked = {option: value for option, value in given.items() if value not in (None, ())}
    study = StreamStudy(
        **{**(QUICK if quick else USUAL), **asked},
        workers=workers,
        folder=folder,
        minutes=minutes,
        command=typed(),
    )
    console = Output()
    outcome = carry_out_study(study, console)
    for chosen in study.streams:
        for kind in study.equal:
            console.print(table(chosen, kind, study.learners, outcome.results))
    tell_failures(console, [*outcome.trials, *outcome.results], "stream", "learner")
    if outcome.results:
        with console.status("reading and testing …"):
            written = write(study.path, tell)
        console.print(f"Report: {written}", soft_wrap=True)
    return tell_end(console, outcome.missing, outcome.failure)
