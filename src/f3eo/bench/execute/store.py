"""Rows kept in files of JSON lines, whatever interrupts the writing."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from f3eo.bench.execute import archive, disk
from f3eo.bench.run.row import Row, restore


class Store:
    """The rows of one comparison: `results.jsonl`, and `earlier.jsonl` for what it outgrew.

    Rows that are only in `results.parquet` (see `compact`) count as those of the lines do. Lines
    that are no rows are moved to `damaged.jsonl`.

    Args:
        folder: where the files are; made if missing.
        name: what they are called; default "results". Others have `earlier-NAME.jsonl`
            and `damaged-NAME.jsonl`.

    Attributes:
        moved: lines found damaged and moved to `damaged`.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(self, folder: Path, name: str = "results") -> None:
        disk.prepare(folder)
        end = "" if name == "results" else f"-{name}"
        self.results = folder / f"{name}.jsonl"
        self.earlier = folder / f"earlier{end}.jsonl"
        self.damaged = folder / f"damaged{end}.jsonl"
        self.packed = folder / f"{name}.parquet"
        self.moved = 0
        with disk.named(self.results):
            self.results.open("ab").close()

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
        (results, junk), (earlier, more) = read(self.results), read(self.earlier)
        packed = archive.read(self.packed)
        newest = {row["key"]: row for row in packed + earlier + results}
        away = {row["key"] for row in earlier} - {row["key"] for row in results}
        kept, aside = [], []
        for key, row in newest.items():
            stays = agrees(row) and (key not in away or asked(row))
            (kept if stays else aside).append(row)
        # In this order a crash in between leaves a line in both files, never in none.
        if lines := junk + more:
            disk.append(self.damaged, b"".join(line.rstrip(b"\n") + b"\n" for line in lines))
            self.moved += len(lines)
        if aside != earlier or more:
            _replace(self.earlier, earlier + [row for row in aside if row not in earlier])
        if kept != results or junk:
            _replace(self.results, kept)
        if aside != earlier:
            _replace(self.earlier, aside)
        return kept, sum(not agrees(row) for row in results)

    def compact(self, rows: Sequence[Row]) -> None:
        """Write rows as a table, small enough to be published; a crash leaves the old one."""
        archive.write(rows, self.packed)

    def append(self, row: Row) -> None:
        """Add one row to the results, on the disk before this returns."""
        disk.append(self.results, _line(row))


def read(path: Path) -> tuple[list[Row], list[bytes]]:
    """The rows of a file, and the lines that are none.

    A line counts if it ends in a newline and holds a row: a process killed while writing leaves a
    line that does not.
    """
    if not path.exists():
        return [], []
    with disk.named(path):
        lines = path.read_bytes().splitlines(keepends=True)
    parsed = [(line, _parse(line)) for line in lines]
    return (
        [row for _, row in parsed if row is not None],
        [line for line, row in parsed if row is None],
    )


def _parse(line: bytes) -> Row | None:
    try:
        return restore(json.loads(line, parse_constant=_refuse)) if line.endswith(b"\n") else None
    except (ValueError, TypeError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is never written")


def _line(row: Row) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"


def _replace(path: Path, rows: Iterable[Row]) -> None:
    """Write a file anew; a reader, or a crash, meets the old one or the new one."""
    disk.write(path, b"".join(_line(row) for row in rows))
