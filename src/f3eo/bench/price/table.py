"""The table of one model that `f3eo cost` prints."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from f3eo.bench.models import MODELS
from f3eo.bench.price.row import CostRow
from f3eo.bench.price.variants import GRADIENT, VARIANTS

UNKNOWN = "–"

NOTE = (
    "Time and peak memory of a step, over those of a plain gradient step. Time is processor time "
    "with one thread and wall time with several or on a GPU: median and quartiles over rounds. "
    f"{UNKNOWN} in memory: not measured, or too small to tell from noise."
)


def table(rows: Sequence[CostRow]) -> Table:
    """One line for each row, all of the same model."""
    first = rows[0]
    model = MODELS[first["model"]]
    grid = Table(
        box=box.SIMPLE_HEAD,
        title=Text.assemble((model.name, "bold"), f"  {model.label}, batch {first['batch']}"),
        title_justify="left",
        title_style="",
        caption=_caption(rows),
        caption_justify="left",
        padding=(0, 1),
    )
    grid.add_column("method", no_wrap=True)
    grid.add_column("", overflow="fold", style="dim")
    for name in ("time", "quartiles", "memory"):
        grid.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(row["method"], VARIANTS[row["method"]].label, *_cells(row))
    return grid


def _cells(row: CostRow) -> list[Text | str]:
    spread = UNKNOWN
    if row["time_ratio"] is not None:
        spread = f"{row['time_ratio_low']:.2f} … {row['time_ratio_high']:.2f}"
    if row["error"] and row["time_ratio"] is None:
        return [Text("failed", style="red"), "", ""]
    return [
        Text(_number(row["time_ratio"]), style="bold"),
        Text("" if row["method"] == GRADIENT.name else spread, style="dim"),
        _number(row["memory_ratio"]),
    ]


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _caption(rows: Sequence[CostRow]) -> Text:
    """Time and memory of the plain gradient, rounds, threads, and errors."""
    plain = next((row for row in rows if row["method"] == GRADIENT.name), None)
    text = Text()
    if plain and plain["gradient_ms"] is not None:
        text.append(f"1.00 is {plain['gradient_ms']:.1f} ms")
        if plain["memory_mib"] is not None:
            text.append(f" and {plain['memory_mib']:.0f} MiB")
        threads = plain["machine"]["threads"]
        text.append(f"; {plain['rounds']} rounds, {threads} thread{'s' if threads > 1 else ''}")
    for row in rows:
        if row["error"]:
            text.append(f"\n{row['method']}: {row['error']}", style="red")
    return text
