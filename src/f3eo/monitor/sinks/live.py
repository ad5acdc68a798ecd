"""Scalars as a panel in the terminal that follows the run."""

import time
from collections import deque
from math import isfinite
from typing import Any

from f3eo.monitor.sinks.sink import check_open

KEPT = 32
"""Reports in a curve."""
LAYERS = 12
"""Layers that are shown: those with the largest part of the trace."""
SECONDS = 0.25
"""Time between two pictures at least."""
BARS = "▁▂▃▄▅▆▇█"
LAYER = "f3eo/trace/"


class Live:
    """A panel of the last value of every scalar and the curve of its last 32.

    Without a terminal it shows the panel once, at the end. It needs the package rich.

    Args:
        console: a `rich.console.Console`; default that of standard output.
        title: of the panel; default "f3eo".

    Raises:
        ImportError: rich is not installed (`pip install f3eo[monitor]`).
        ValueError: the sink is closed.
    """

    def __init__(self, console: Any = None, *, title: str = "f3eo") -> None:
        try:
            from rich.console import Console
            from rich.live import Live as Display
        except ImportError as error:
            raise ImportError("Live needs the package rich: pip install 'f3eo[monitor]'") from error
        self.title = title
        self._console = console if console is not None else Console()
        self._display = Display(console=self._console, auto_refresh=False)
        self._curves: dict[str, deque[float]] = {}
        self._step = 0
        self._shown = -SECONDS
        self._closed = False
        if self._console.is_terminal:
            self._display.start()

    def __call__(self, step: int, scalars: dict[str, float]) -> None:
        """Take the scalars, and draw if the last picture is old enough."""
        check_open(self, closed=self._closed)
        self._step = step
        for name, value in scalars.items():
            self._curves.setdefault(name, deque(maxlen=KEPT)).append(value)
        now = time.monotonic()
        if self._display.is_started and now - self._shown >= SECONDS:
            self._shown = now
            self._display.update(self.panel(), refresh=True)

    def close(self) -> None:
        """Draw the last picture, and give the terminal back."""
        if self._closed:
            return
        self._closed = True
        if self._display.is_started:
            self._display.update(self.panel(), refresh=True)
            self._display.stop()
        elif self._curves:
            self._console.print(self.panel())

    def panel(self) -> Any:
        """The picture, which rich can print."""
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(no_wrap=True)
        for name in shown(self._curves):
            curve = list(self._curves[name])
            label = Text(name.removeprefix("f3eo/"), style="dim" if LAYER in name else "bold")
            grid.add_row(label, Text(f"{curve[-1]:.4g}"), Text(bars(curve), style="#c2185b"))
        title = Text.assemble((self.title, "bold"), f"  step {self._step}")
        return Panel(grid, title=title, title_align="left", expand=False)


def shown(curves: dict[str, deque[float]]) -> list[str]:
    """All names but those of layers, and the layers with the largest part of the trace."""
    by_layer = [name for name in curves if name.startswith(LAYER)]
    largest = sorted(by_layer, key=lambda name: _or_zero(curves[name][-1]), reverse=True)
    return [name for name in curves if name not in by_layer] + largest[:LAYERS]


def bars(curve: list[float]) -> str:
    """A curve in block characters, from its least to its greatest value; a gap is a blank."""
    finite = [value for value in curve if isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    unit = (high - low) / (len(BARS) - 1)
    return "".join(
        (BARS[round((value - low) / unit)] if unit > 0 else BARS[0]) if isfinite(value) else " "
        for value in curve
    )


def _or_zero(value: float) -> float:
    return value if isfinite(value) else 0.0
