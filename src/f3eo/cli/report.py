"""`f3eo report`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from f3eo.bench.report.study_page import report as carry_out
from f3eo.cli.app import Output, app, tell


@app.command
def report(folder: Positional[Annotated[Path, arg(metavar="PATH")]] = Path("runs/study")) -> int:
    """Write the report of a study: one page that needs no network, its pictures and a summary.

    It reads the rows that `f3eo bench` wrote into PATH, and writes report.html, summary.md,
    summary.json and pictures/ beside them. If the study is not complete, the page says so.

    Args:
        folder: Folder of the study.
    """
    console = Output()
    with console.status("reading and testing …"):
        written = carry_out(folder, tell)
    console.print(f"Report: {written}", soft_wrap=True)
    return 0
