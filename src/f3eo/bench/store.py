"""Rows kept in files of JSON lines, whatever interrupts the writing."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from f3eo.bench import archive
from f3eo.bench.row import Row


class Store:
    """The rows of one comparison: `results.jsonl`, and `earlier.jsonl` for what it outgrew.

    Rows that are only in `results.parquet` (see `compact`) count as those of the lines do.

    Args:
        folder: where the files are; made if missing.
        name: what they are called; default "results". Others have `earlier-NAME.jsonl`.

    Attributes:
        damaged: lines found damaged and dropped when the files were read.
    """

    def __init__(self, folder: Path, name: str = "results") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.results = folder / f"{name}.jsonl"
        self.earlier = folder / f"earlier{'' if name == 'results' else f'-{name}'}.jsonl"
        self.packed = folder / f"{name}.parquet"
        self.damaged = 0

    def arrange(
        self, agrees: Callable[[Row], bool], asked: Callable[[Row], bool]
    ) -> tuple[list[Row], int]:
        """Repair the files, and sort the rows into them.

        Args:
            agrees: whether a row may stay among the results; the others are set aside.
            asked: whether one that was set aside comes back, if it agrees.

        Returns:
            The rows that agree, the newest of each key; how many were set aside just now.
        """
        results, earlier = self._read(self.results), self._read(self.earlier)
        packed = archive.read(self.packed)
        newest = {row["key"]: row for row in packed + earlier + results}
        away = {row["key"] for row in earlier} - {row["key"] for row in results}
        kept, aside = [], []
        for key, row in newest.items():
            stays = agrees(row) and (key not in away or asked(row))
            (kept if stays else aside).append(row)
        # In this order a crash in between leaves a row in both files, never in none.
        if aside != earlier:
            _replace(self.earlier, earlier + [row for row in aside if row not in earlier])
        if kept != results or self.damaged:
            _replace(self.results, kept)
        if aside != earlier:
            _replace(self.earlier, aside)
        return kept, sum(not agrees(row) for row in results)

    def compact(self, rows: Sequence[Row]) -> None:
        """Write rows as a table, small enough to be published; a crash leaves the old one."""
        draft = self.packed.with_suffix(".tmp")
        archive.write(rows, draft)
        draft.replace(self.packed)

    def append(self, row: Row) -> None:
        """Add one row to the results, on the disk before this returns."""
        line = _line(row)
        with self.results.open("ab", buffering=0) as file:
            file.write(line)
            os.fsync(file.fileno())

    def _read(self, path: Path) -> list[Row]:
        rows, damaged = read(path)
        self.damaged += damaged
        return rows


def read(path: Path) -> tuple[list[Row], int]:
    """The rows of a file, and how many damaged lines were passed over.

    A line counts if it ends in a newline and holds an object with a key: a process killed while
    writing leaves a line that does not.
    """
    if not path.exists():
        return [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    rows = [row for line in lines if (row := _parse(line)) is not None]
    return rows, len(lines) - len(rows)


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and "key" in row else None


def _line(row: Row) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"


def _replace(path: Path, rows: Iterable[Row]) -> None:
    """Write a file anew; a reader, or a crash, meets the old one or the new one."""
    draft = path.with_suffix(".tmp")
    with draft.open("wb") as file:
        file.writelines(_line(row) for row in rows)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
