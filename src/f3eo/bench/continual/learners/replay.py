"""Experience replay: every step on the current batch and on as many samples of a small memory.

Chaudhry et al. 2019 (1902.10486), algorithm 1 with reservoir sampling.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from f3eo.bench.continual.learners.learner import Learner, Peer, Space
from f3eo.bench.continual.learners.spaces import MOMENTUM, RADIUS, SGD, SGD_RATE
from f3eo.bench.methods import METHODS, Closure, Stepper
from f3eo.bench.methods.method import Source
from f3eo.continual import Memory, Reservoir

MEMORY: dict[str, Any] = {"memory": 200, "samples": 10}
"""Samples in the memory, one per class and task of a stream of twenty with ten classes, and samples
drawn at a step, as many as a batch has. Both as in the code of Stable SGD's comparison."""


class Replay(Learner):
    """A method that steps on the current batch and samples of a memory as one batch.

    Their loss is one mean: with as many of both, half the weight is the memory's. Samples are drawn
    before the current batch is added, so that none stands in the batch twice.

    Args:
        stepper: the method.
        memory: of samples (x, y).
        samples: drawn at a step.
    """

    def __init__(self, stepper: Stepper, memory: Memory, samples: int) -> None:
        self.stepper, self.memory, self.samples = stepper, memory, samples
        self.optimizers = stepper.optimizers

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One step on both; the loss is that of both."""
        drawn = self.memory.draw(self.samples)
        self.memory.add(x, y)
        if drawn is not None:
            x, y = (torch.cat(pair) for pair in zip((x, y), drawn, strict=True))
        return self.stepper.step(closure, x, y)


def reservoir(options: Mapping[str, Any], seed: int) -> Reservoir:
    """The memory of these options, with a generator of its own."""
    return Reservoir(options["memory"], generator=Generator().manual_seed(seed))


def _peer(method: str, name: str, label: str, colour: str, space: Space) -> Peer:
    inner = METHODS[method]

    def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Replay:
        own = {name: value for name, value in options.items() if name not in MEMORY}
        stepper = inner.build(model, own, seed)
        return Replay(stepper, reservoir(options, seed), options["samples"])

    return Peer(
        name=name,
        label=label,
        colour=colour,
        kind="memory",
        source=Source("f3eo", f"{__name__}.Replay", "arXiv 1902.10486"),
        defaults={**inner.defaults, **SGD, **MEMORY},
        space={**SGD_RATE, **space},
        build=build,
        note="reservoir sampling; current samples and those of the memory are one batch",
        idle=inner.idle,
    )


PEERS = (
    _peer("sgd", "replay", "replay", "#1565c0", MOMENTUM),
    _peer("sam", "replay_sam", "replay over SAM", "#7986cb", RADIUS),
)
