"""Watch a run: plain scalars every so many steps, beside F3EO or any other optimizer."""

from f3eo.monitor.monitor import Monitor
from f3eo.monitor.quantities import QUANTITIES
from f3eo.monitor.sinks import JsonLines, Live, Sink, TensorBoard, read_lines

__all__ = [
    "QUANTITIES",
    "JsonLines",
    "Live",
    "Monitor",
    "Sink",
    "TensorBoard",
    "read_lines",
]
