"""`f3eo methods`."""

import json
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from f3eo.bench.execute.disk import prepare_file, write
from f3eo.bench.methods import METHODS
from f3eo.bench.plan.catalogue import NOTE, catalogue, remarks, tables
from f3eo.bench.plan.checks import check_names
from f3eo.cli.app import ALL, NO_FILE, Output, app


@app.command
def methods(
    methods: Annotated[tuple[str, ...], arg(metavar="METHOD ...")] = (ALL,),
    measure: bool = False,
    file: Annotated[
        Path | None, arg(name="json", metavar="FILE", help_behavior_hint=NO_FILE)
    ] = None,
) -> int:
    """List the methods of `f3eo compare`: order, needs, cost of a step, source, health.

    The cost is counted during real steps, and health comes from runs on convex problems. The list
    takes about half a minute.

    Args:
        methods: Names of methods, or all.
        measure: Also time the steps.
        file: JSON file that receives the list.
    """
    names = tuple(METHODS) if methods == (ALL,) else methods
    check_names("method", names, {ALL: None, **METHODS})
    if ALL in names:
        raise ValueError(f"{ALL} means every method; give it alone, got {' '.join(names)}")
    if file:
        prepare_file(file)
    console = Output()
    with console.status("") as status:
        lines = catalogue(names, measure, status.update)
    try:
        if file:
            write(file, json.dumps(lines, indent=1, ensure_ascii=False) + "\n")
    finally:  # print the list even if the file cannot be written
        for grid in tables(lines):
            console.print(grid)
        console.print(remarks(lines))
        console.print(NOTE, style="dim")
    return 0
