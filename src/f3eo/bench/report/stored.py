"""Rows of a study as its folder holds them, the newest of each key."""

from collections.abc import Callable
from pathlib import Path

from f3eo.bench.execute import archive
from f3eo.bench.execute.store import read
from f3eo.bench.run.row import Row, restore


def stored(
    folder: Path,
    name: str,
    damaged: list[str],
    command: str,
    restore: Callable[[Row], Row] = restore,
) -> list[Row]:
    """The newest row of each key; damaged lines are left out.

    Args:
        folder: of the study.
        name: stem of its files, "results" or "trials".
        damaged: receives a sentence where lines are damaged.
        command: writes such rows, and so moves damaged ones away.
        restore: checks a row and puts it into today's form.
    """
    rows, junk = read(lines := folder / f"{name}.jsonl", restore)
    if junk:
        damaged.append(
            f"{lines} has {len(junk)} damaged line(s), which are left out; `{command}` of that "
            "name moves them away and repeats their runs."
        )
    rows = archive.read(folder / f"{name}.parquet", restore) + rows
    return list({row["key"]: row for row in rows}.values())
