"""Finished runs as data frames: final values per run, mean curves over seeds."""

from collections.abc import Sequence

import polars as pl

from f3eo.bench.run.row import Row
from f3eo.bench.statistics.student import half_width


def finals(rows: Sequence[Row]) -> pl.DataFrame:
    """The last value of each metric, one line per finished run."""
    return pl.DataFrame(
        [
            {"task": row["task"], "method": row["method"], "seed": row["seed"], **row["final"]}
            for row in rows
            if row["status"] == "finished"
        ],
        infer_schema_length=None,
    )


def curves(rows: Sequence[Row]) -> pl.DataFrame:
    """The mean over seeds and half its 95 % interval, at each point of each method's curve.

    Returns:
        One line per task, method and point, with columns `METRIC` and `METRIC_half`.
    """
    runs = [
        pl.DataFrame(row["curve"])
        .cast(pl.Float64)
        .with_row_index("point")
        .with_columns(task=pl.lit(row["task"]), method=pl.lit(row["method"]))
        for row in rows
        if row["status"] == "finished"
    ]
    if not runs:
        return pl.DataFrame()
    frame = pl.concat(runs)
    metrics = [name for name in frame.columns if name not in ("task", "method", "point")]
    spread = frame.group_by("task", "method", "point").agg(
        pl.len().alias("n"),
        *[pl.col(name).mean() for name in metrics],
        *[(pl.col(name).std() / pl.len().sqrt()).alias(f"{name}_half") for name in metrics],
    )
    widths = pl.col("n").map_elements(half_width, return_dtype=pl.Float64)
    return spread.with_columns(pl.col(f"{name}_half") * widths for name in metrics).sort(
        "task", "method", "point"
    )
