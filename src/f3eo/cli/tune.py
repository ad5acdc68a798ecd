"""`f3eo tune`."""

from pathlib import Path

from f3eo.bench.plan.choice import table
from f3eo.bench.plan.stages import tune as carry_out
from f3eo.cli import study_options as option
from f3eo.cli.app import Device, Output, app, tell_end, tell_failures


@app.command
def tune(
    name: option.Name = None,
    tasks: option.Tasks = (),
    methods: option.Methods = (),
    trials: option.Trials = None,
    scale: option.Scale = None,
    base: option.Base = None,
    workers: option.Workers = 2,
    device: Device = "cpu",
    folder: option.Folder = Path("runs"),
    minutes: option.Minutes = None,
    quick: option.Quick = False,
) -> int:
    """Search hyper-parameters, with equally many trials for every method and task.

    The settings are drawn before the first run, from the same ranges on every task. Each is scored
    on held-out training samples and gets the same time, with each step at its measured price. The
    rows are in FOLDER/NAME/trials.jsonl and trials.parquet; `f3eo bench` with the same name uses
    them. Ctrl-C keeps finished runs; the same command resumes.
    """
    study = option.study_asked(
        quick, workers, device, folder, minutes, name, tasks, methods, trials, None, scale, base, ()
    )
    console = Output()
    outcome = carry_out(study, console)
    for task in study.tasks:
        console.print(table(task, study.methods, outcome.trials))
    tell_failures(console, outcome.trials)
    return tell_end(console, outcome.missing, outcome.failure)
