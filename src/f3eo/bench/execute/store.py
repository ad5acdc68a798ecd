"""A store of rows in files of JSON lines, which survive interrupted writing."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from f3eo.bench.execute import archive, disk
from f3eo.bench.run.row import Row, restore


class Store:
    """Rows of one comparison: `results.jsonl`, and `earlier.jsonl` for other configurations.

    Rows that are only in `results.parquet` (see `compact`) count, too. Lines that are not rows are
    moved to `damaged.jsonl`.

    Args:
        folder: folder of the files; made if missing.
        name: stem of the files; default "results". Other names have `earlier-NAME.jsonl` and
            `damaged-NAME.jsonl`.
        restore: checks a stored row and gives it in today's names; default that of comparisons.

    Attributes:
        moved: number of damaged lines moved to `damaged`.

    Raises:
        OSError: the folder is not writable.
    """

    def __init__(
        self, folder: Path, name: str = "results", restore: Callable[[Row], Row] = restore
    ) -> None:
        disk.prepare(folder)
        self._restore = restore
        end = "" if name == "results" else f"-{name}"
        self.results = folder / f"{name}.jsonl"
        self.earlier = folder / f"earlier{end}.jsonl"
        self.damaged = folder / f"damaged{end}.jsonl"
        self.packed = folder / f"{name}.parquet"
        self.moved = 0
        with disk.named(self.results):
            self.results.open("ab").close()

    def arrange(
        self, is_compatible: Callable[[Row], bool], is_requested: Callable[[Row], bool]
    ) -> tuple[list[Row], int]:
        """Repair the files, and move rows between results and earlier rows.

        Args:
            is_compatible: whether a row may stay among the results; others are set aside.
            is_requested: whether a compatible row that was set aside comes back.

        Returns:
            The compatible rows, the newest of each key; the number of rows set aside by this call.
        """
        results, junk = read(self.results, self._restore)
        earlier, more = read(self.earlier, self._restore)
        packed = archive.read(self.packed, self._restore)
        newest = {row["key"]: row for row in packed + earlier + results}
        away = {row["key"] for row in earlier} - {row["key"] for row in results}
        kept, aside = [], []
        for key, row in newest.items():
            stays = is_compatible(row) and (key not in away or is_requested(row))
            (kept if stays else aside).append(row)
        # In this order a crash in between leaves a row in both files, never in neither.
        if lines := junk + more:
            disk.append(self.damaged, b"".join(line.rstrip(b"\n") + b"\n" for line in lines))
            self.moved += len(lines)
        if aside != earlier or more:
            _replace(self.earlier, earlier + [row for row in aside if row not in earlier])
        if kept != results or junk:
            _replace(self.results, kept)
        if aside != earlier:
            _replace(self.earlier, aside)
        return kept, sum(not is_compatible(row) for row in results)

    def compact(self, rows: Sequence[Row]) -> None:
        """Write rows as a parquet file; a crash leaves the old file."""
        archive.write(rows, self.packed)

    def append(self, row: Row) -> None:
        """Add one row to the results and flush it to the disk."""
        disk.append(self.results, _line(row))


def read(path: Path, restore: Callable[[Row], Row] = restore) -> tuple[list[Row], list[bytes]]:
    """The rows of a file, and the lines that are not rows.

    A line without a newline at its end is not a row: a process killed while writing leaves it.
    """
    if not path.exists():
        return [], []
    with disk.named(path):
        lines = path.read_bytes().splitlines(keepends=True)
    parsed = [(line, _parse(line, restore)) for line in lines]
    return (
        [row for _, row in parsed if row is not None],
        [line for line, row in parsed if row is None],
    )


def _parse(line: bytes, restore: Callable[[Row], Row]) -> Row | None:
    try:
        return restore(json.loads(line, parse_constant=_refuse)) if line.endswith(b"\n") else None
    except (ValueError, TypeError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"a row has finite numbers only, received {constant}")


def _line(row: Row) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"


def _replace(path: Path, rows: Iterable[Row]) -> None:
    """Replace a file by these rows; see `disk.write`."""
    disk.write(path, b"".join(_line(row) for row in rows))
