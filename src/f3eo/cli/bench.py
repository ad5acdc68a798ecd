"""`f3eo bench`."""

from pathlib import Path

from f3eo.bench.plan.stages import bench as carry_out
from f3eo.cli import study_options as option
from f3eo.cli.app import Device, Output, app, tell_end, tell_failures


@app.command
def bench(
    name: option.Name = None,
    tasks: option.Tasks = (),
    methods: option.Methods = (),
    trials: option.Trials = None,
    seeds: option.Seeds = None,
    scale: option.Scale = None,
    base: option.Base = None,
    only: option.Only = (),
    workers: option.Workers = 2,
    device: Device = "cpu",
    folder: option.Folder = Path("runs"),
    minutes: option.Minutes = None,
    quick: option.Quick = False,
) -> int:
    """Run a study: every method at its best settings, on fresh seeds and the test set.

    Methods that `f3eo tune` has not tuned under this name are tuned first. Every run gets the same
    time: each step counts at its price, measured once per task for all methods together, so cheap
    methods take more steps. The rows are in FOLDER/NAME/results.jsonl and results.parquet;
    for a page of them see `f3eo report`. The defaults take about sixteen hours on two cores,
    --quick less than a quarter of an hour. Ctrl-C keeps finished runs; the same command resumes.
    """
    study = option.study_asked(
        *(quick, workers, device, folder, minutes),
        *(name, tasks, methods, trials, seeds, scale, base, only),
    )
    console = Output()
    outcome = carry_out(study, console)
    tell_failures(console, [*outcome.trials, *outcome.results])
    if outcome.results:
        console.print(f"Results: {study.path}", soft_wrap=True)
    return tell_end(console, outcome.missing, outcome.failure)
