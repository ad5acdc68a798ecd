"""The registry of streams: one family of tasks per file, listed here by stream name."""

from collections.abc import Mapping

from f3eo.bench.continual.streams import (
    blocks,
    mnist_fashion,
    permuted,
    rotated,
    sinusoid,
    split,
    text,
)
from f3eo.bench.continual.streams.stream import Stage, Stream, held_out, limited

STREAMS: Mapping[str, Stream] = {
    stream.name: stream
    for module in (permuted, rotated, blocks, split, mnist_fashion, text, sinusoid)
    for stream in module.STREAMS
}

__all__ = ["STREAMS", "Stage", "Stream", "held_out", "limited"]
