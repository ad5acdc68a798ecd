"""The report of a stream study: one self-contained page, its pictures and a summary."""

from collections.abc import Callable
from pathlib import Path

from f3eo.bench.continual.report.load import load
from f3eo.bench.continual.report.page import render
from f3eo.bench.continual.report.pictures import pictures
from f3eo.bench.continual.report.summary import text
from f3eo.bench.execute import disk


def write(folder: Path, tell: Callable[[str], object] = lambda text: None) -> Path:
    """Write `report.html`, `summary.md` and `pictures/` into a stream study's folder.

    Args:
        folder: the study's folder.
        tell: called with one sentence per damaged file; default ignores them.

    Returns:
        The path of the page.

    Raises:
        ValueError: the folder holds no results of streams.
    """
    study = load(folder)
    for sentence in study.damaged:
        tell(sentence)
    disk.prepare(folder / "pictures")
    drawn = pictures(study)
    for name, svg in drawn.items():
        disk.write(folder / "pictures" / f"{name}.svg", svg)
    disk.write(folder / "summary.md", text(study))
    disk.write(folder / "report.html", render(study, drawn))
    return folder / "report.html"
