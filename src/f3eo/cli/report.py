"""`f3eo report`: what a study found, as a page."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from f3eo.bench.report.study_page import report as carry_out
from f3eo.cli.app import Output, app, tell


@app.command
def report(folder: Positional[Annotated[Path, arg(metavar="PATH")]] = Path("runs/study")) -> int:
    """Write what a study found: one page that needs no network, its pictures, and a summary.

    Reads the rows that `f3eo bench` left in PATH, and writes report.html, summary.md, summary.json
    and pictures/ beside them. A study that is not complete gives a page that says so.

    Args:
        folder: Folder of the study.
    """
    console = Output()
    with console.status("reading and testing …"):
        written = carry_out(folder, tell)
    console.print(f"Report: {written}", soft_wrap=True)
    return 0
