"""`f3eo methods`."""

import json
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from f3eo.bench.execute.disk import prepare_file, write
from f3eo.bench.methods import METHODS
from f3eo.bench.plan.catalogue import NOTE, catalogue, remarks, tables
from f3eo.bench.plan.given import check_names
from f3eo.cli.app import ALL, Output, app


@app.command
def methods(
    methods: Annotated[tuple[str, ...], arg(metavar="METHOD ...")] = (ALL,),
    measure: bool = False,
    file: Annotated[Path | None, arg(name="json", metavar="FILE", help_behavior_hint="")] = None,
) -> int:
    """List the methods `f3eo compare` knows: order, needs, counted cost, source, health.

    Nothing in it is taken on trust: the cost is counted while the method steps, and every method is
    tried on convex problems. It takes about half a minute.

    Args:
        methods: What to list.
        measure: Whether to time steps, too.
        file: File to write the list to.
    """
    names = tuple(METHODS) if methods == (ALL,) else methods
    check_names("method", names, {ALL: None, **METHODS})
    if ALL in names:
        raise ValueError(f"{ALL} is every method, and stands alone; got {' '.join(names)}")
    if file:
        prepare_file(file)
    console = Output()
    with console.status("") as status:
        lines = catalogue(names, measure, status.update)
    try:
        if file:
            write(file, json.dumps(lines, indent=1, ensure_ascii=False) + "\n")
    finally:  # a file that cannot be written is no reason to show nothing
        for grid in tables(lines):
            console.print(grid)
        console.print(remarks(lines))
        console.print(NOTE, style="dim")
    return 0
