"""What the display of running runs shows of one kind of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from f3eo.bench.run.row import Row


class View(ABC):
    """A table of results, a name for each run, and a line for each row."""

    @abstractmethod
    def table(self, rows: Sequence[Row]) -> Table:
        """All results so far."""

    @abstractmethod
    def name(self, run: Any) -> str:
        """A run, beside its progress bar."""

    @abstractmethod
    def line(self, row: Row) -> Text:
        """A finished run, where there is no terminal."""
