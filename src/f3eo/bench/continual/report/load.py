"""Reading a stream study from its folder."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from f3eo.bench.continual.report.study import StreamStudy
from f3eo.bench.continual.run.row import restore
from f3eo.bench.execute import archive, disk
from f3eo.bench.execute.store import read
from f3eo.bench.report.stored import stored

CURE = "restore the original, or move it away: the report then does without it"
"""Advice in the error about a damaged study.json."""


def load(folder: Path) -> StreamStudy:
    """Read a study from its folder; files that are absent give empty entries.

    Raises:
        ValueError: the folder holds no results, or a file is damaged.
    """
    damaged: list[str] = []
    results, trials = (
        stored(folder, name, damaged, "f3eo stream", restore) for name in ("results", "trials")
    )
    if not results:
        raise ValueError(
            f"no results of streams in {folder}: a folder of `f3eo stream` holds results.jsonl or "
            "results.parquet; give the folder that it named at its end"
        )
    asked = disk.read_json(folder / "study.json", CURE, _check_asked)
    return StreamStudy(folder.resolve().name, results, trials, asked, damaged)


def is_stream_study(folder: Path) -> bool:
    """Whether a folder holds rows of streams; a damaged file holds none."""
    with suppress(disk.Damaged):
        return bool(
            archive.read(folder / "results.parquet", restore)
            or read(folder / "results.jsonl", restore)[0]
        )
    return False


def _check_asked(asked: Any) -> None:
    """Refuse entries of the wrong type in `study.json`."""
    "".join([*asked.get("streams", ()), *asked.get("learners", ())])
    int(asked.get("seeds") or 0)
