"""Rows in a parquet file, a tenth of their size as JSON lines.

Numbers are columns with their own names, e.g. `final.test_loss` or `curve.test_loss`; other
objects are columns of JSON. Curves are stored in single precision, all other values exactly. A
number that only some rows have is read as None in the others.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from f3eo.bench.execute import disk
from f3eo.bench.run.row import Row, restore

GROUPS = ("final", "best", "target", "curve")
"""Entries of a row whose own entries are columns."""
CURE = "put the original back, or move it away: then only the rows in the .jsonl beside it count"
"""The cure in the message about a damaged file."""
JSON = ":json"
"""Suffix of columns of JSON."""


def write(rows: Sequence[Row], path: Path) -> None:
    """Write rows to a file, in place of its content."""
    flat = [_flat(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    columns = [_column(name, [row.get(name) for row in flat]) for name in names]
    content = io.BytesIO()
    pl.DataFrame(columns).write_parquet(content, compression="zstd", compression_level=19)
    disk.write(path, content.getvalue())


def read(path: Path, restore: Callable[[Row], Row] = restore) -> list[Row]:
    """The rows of a file; none if the file does not exist.

    Args:
        path: the file.
        restore: checks a row and gives it in today's names; default that of comparisons.

    Raises:
        Damaged: the file holds something else.
    """
    if not path.exists():
        return []
    with disk.whole(path, CURE):
        return [restore(_nested(row)) for row in _frame(path).iter_rows(named=True)]


def _frame(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(path.read_bytes()))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name in GROUPS:
            flat[name] = value is not None
            flat |= {f"{name}.{key}": one for key, one in (value or {}).items()}
        elif isinstance(value, (dict, list)):
            flat[name + JSON] = json.dumps(value)
        else:
            flat[name] = value
    return flat


def _nested(flat: Mapping[str, Any]) -> Row:
    row: Row = {}
    for name, value in flat.items():
        group, dot, key = name.partition(".")
        if dot and group in GROUPS:
            if row.get(group) is not None and not (group == "curve" and value is None):
                row[group][key] = value
        elif name in GROUPS:
            row[name] = {} if value else None
        elif value is None:
            row.setdefault(name.removesuffix(JSON), None)
        elif name.endswith(JSON):
            row[name.removesuffix(JSON)] = json.loads(value)
        else:
            row[name] = value
    return row


def _column(name: str, values: list[Any]) -> pl.Series:
    """A column of floats if any value is a float, of lists for curves, else of the values' type."""
    kinds = {type(value) for value in values if value is not None}
    if name.startswith("curve."):
        return pl.Series(name, values, dtype=pl.List(pl.Float32))
    if kinds <= {int, float} and float in kinds:
        return pl.Series(name, values, dtype=pl.Float64)
    return pl.Series(name, values, strict=True)
