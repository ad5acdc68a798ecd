"""The tape: what the second pass replays of the first, by the number of the call."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from f3eo.curvature.cuts import Cuts
from f3eo.fisher.ghost.recording.layout import Layout
from f3eo.fisher.ghost.recording.recording import Recording


@dataclass(frozen=True)
class TapedUse:
    """What the second pass needs of a use.

    Args:
        func: the operation.
        shape, stride: of its output.
        layout: of its output.
        sampled: for each tensor among the arguments, whether it carries samples.
    """

    func: Callable[..., Any]
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    layout: Layout
    sampled: list[bool]


@dataclass(frozen=True)
class Tape:
    """What the second pass replays of the first, by the number of the call.

    Args:
        uses: operations in which parameters meet samples.
        deriving: calls that compute a tensor from parameters alone.
        kinks: piecewise linear operations, with the tensor that tells the piece.
        cuts: outputs of the first pass without a gradient, reused unchanged.
        single_use: ids of the leaves that exactly one recorded operation consumes directly.
        samples: B.
    """

    uses: Mapping[int, TapedUse]
    deriving: set[int]
    kinks: Mapping[int, Tensor]
    cuts: Cuts
    single_use: set[int]
    samples: int


def tape_of(recording: Recording, layouts: Sequence[Sequence[Layout]] | None) -> Tape:
    """The tape of a recorded pass.

    Args:
        recording: the pass.
        layouts: of the outputs of each use; None where there are no gradients to shift along.
    """
    uses, counts = {}, Counter[int]()
    for use, own in zip(recording.uses, layouts, strict=True) if layouts else ():
        shape, stride = tuple(use.shapes[0]), use.strides[0]
        uses[use.number] = TapedUse(use.call.func, shape, stride, own[0], use.sampled)
        for p, sources in zip(use.parameters, use.sources, strict=True):
            counts.update(dict.fromkeys(sources, 1 if id(p) in sources else 2))
    return Tape(
        uses=uses,
        deriving=recording.deriving,
        kinks={number: kink.first for number, kink in recording.kinks.items()},
        cuts=recording.cuts,
        single_use={i for i, n in counts.items() if n == 1},
        samples=len(recording.output.losses),
    )
