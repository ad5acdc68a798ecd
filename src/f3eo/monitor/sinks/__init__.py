"""Where the scalars of a monitor go."""

from f3eo.monitor.sinks.json_lines import JsonLines, read_lines
from f3eo.monitor.sinks.live import Live
from f3eo.monitor.sinks.sink import Sink
from f3eo.monitor.sinks.tensor_board import TensorBoard

__all__ = ["JsonLines", "Live", "Sink", "TensorBoard", "read_lines"]
