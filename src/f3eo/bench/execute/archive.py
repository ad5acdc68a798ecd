"""Rows as a table in a parquet file, and back: a tenth of their size as lines.

Numbers keep their names as columns, `final.test_loss` or `curve.test_loss`; what is no number or
text is JSON. Curves are kept in single precision, all else as it is. A number that only some rows
have comes back as None in the others.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from f3eo.bench.execute import disk
from f3eo.bench.run.row import Row, restore

GROUPS = ("final", "best", "target", "curve")
"""Entries of a row whose own entries become columns."""
CURE = "put the original back, or move it away: the rows in the .jsonl beside it then stand alone"
"""What to do about a damaged file."""
JSON = ":json"
"""How columns of JSON end."""


def write(rows: Sequence[Row], path: Path) -> None:
    """Write rows over what the file held."""
    flat = [_flat(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    columns = [_column(name, [row.get(name) for row in flat]) for name in names]
    content = io.BytesIO()
    pl.DataFrame(columns).write_parquet(content, compression="zstd", compression_level=19)
    disk.write(path, content.getvalue())


def read(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file.

    Raises:
        Damaged: it holds no rows.
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
    """Booleans, texts and whole numbers as they are, other numbers as floats, curves as lists."""
    kinds = {type(value) for value in values if value is not None}
    if name.startswith("curve."):
        return pl.Series(name, values, dtype=pl.List(pl.Float32))
    if kinds <= {int, float} and float in kinds:
        return pl.Series(name, values, dtype=pl.Float64)
    return pl.Series(name, values, strict=True)
