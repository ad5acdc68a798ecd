"""Scalars for TensorBoard."""

from pathlib import Path
from typing import Any

from f3eo.monitor.sinks.sink import check_open


class TensorBoard:
    """Writes scalars as a `SummaryWriter` does, under their names; NaN as NaN.

    Args:
        writer: a `torch.utils.tensorboard.SummaryWriter`, which stays open at the end, or the
            folder of a new one.

    Raises:
        ImportError: a folder without the package tensorboard (`pip install f3eo[monitor]`).
        TypeError: something else.
        ValueError: the sink is closed.
    """

    def __init__(self, writer: Any) -> None:
        self._own = isinstance(writer, (str, Path))
        self._writer = _opened(writer) if self._own else writer
        self._closed = False
        if not hasattr(self._writer, "add_scalar"):
            raise TypeError(
                f"TensorBoard needs a SummaryWriter or the path of a folder, received {writer!r}"
            )

    def __call__(self, step: int, scalars: dict[str, float]) -> None:
        """Write the scalars."""
        check_open(self, closed=self._closed)
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush, and close a writer of its own."""
        if not self._closed:
            self._closed = True
            self._writer.close() if self._own else self._writer.flush()


def _opened(folder: str | Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "TensorBoard(folder) needs the package tensorboard: pip install 'f3eo[monitor]'"
        ) from error
    return SummaryWriter(str(folder))
