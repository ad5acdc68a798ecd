"""`f3eo inspect`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from f3eo.bench.execute.disk import prepare
from f3eo.bench.inspect.task import inspect_checkpoints
from f3eo.cli.app import Output, app


@app.command
def inspect(
    checkpoints: Positional[Annotated[tuple[Path, ...], arg(metavar="CHECKPOINT ...")]],
    task: Annotated[
        str | None, arg(metavar="TASK", help_behavior_hint="(default: the file's)")
    ] = None,
    samples: Annotated[int, arg(metavar="N")] = 500,
    points: Annotated[int, arg(metavar="N")] = 21,
    page: Annotated[Path, arg(metavar="FILE")] = Path("runs/inspect.html"),
) -> int:
    """Write a page about one or two trained models: what the Fisher information says of them.

    Trace, log det and effective dimension by layer, the spectrum, the free energy, the gradient
    noise scale, the loss around the parameters, and the samples with the largest gradients. A
    checkpoint is a state dict of the task's model, or a file of f3eo compare --keep, which has the
    path of training, too. Any optimizer will do.

    Args:
        checkpoints: One file, or two for a page side by side.
        task: Name of the task that the models were trained on.
        samples: Training samples that are measured, from the first on; at least 2.
        points: Points of the landscape in each direction, odd; 0 draws none.
        page: The page; its folder is made.
    """
    console = Output()
    prepare(page.parent)
    with console.status("measuring …"):
        inspect_checkpoints(checkpoints, task, samples, page, points)
    console.print(f"Page: {page}", soft_wrap=True)
    return 0
