"""`f3eo report`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from f3eo.bench.continual.report import is_stream_study, write
from f3eo.bench.report.study_page import report as of_methods
from f3eo.cli.app import Output, app, tell


@app.command
def report(folder: Positional[Annotated[Path, arg(metavar="PATH")]] = Path("runs/study")) -> int:
    """Write the report of a study: one page that needs no network, its pictures and a summary.

    It reads the rows that `f3eo bench` or `f3eo stream` wrote into PATH, and writes report.html,
    summary.md and pictures/ beside them; of `f3eo bench`, summary.json, too. If the study is not
    complete, the page says so.

    Args:
        folder: Folder of the study.
    """
    console = Output()
    with console.status("reading and testing …"):
        written = (write if is_stream_study(folder) else of_methods)(folder, tell)
    console.print(f"Report: {written}", soft_wrap=True)
    return 0
