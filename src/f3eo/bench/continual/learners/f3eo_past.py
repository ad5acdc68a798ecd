"""F3EO with a past: a memory of earlier samples, or an importance of earlier parameters.

Both are parts of one optimizer, `F3EO(..., past=part)`; the boundary of a stage is its
`consolidate()`. The importance also stands within the recipe of Stable SGD.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from f3eo import F3EO
from f3eo.bench.continual.learners.learner import Batches, Peer, Plain, Space
from f3eo.bench.continual.learners.replay import MEMORY, reservoir
from f3eo.bench.continual.learners.spaces import PENALTY, SGD, SGD_RATE, STRUCTURE, log
from f3eo.bench.continual.learners.stable_sgd import GAMMA, UNMASKED, stable
from f3eo.bench.methods import METHODS, Closure
from f3eo.bench.methods import f3eo as method
from f3eo.bench.methods.method import Source
from f3eo.continual import Elastic, FromSteps, Rehearsal
from f3eo.optimizer.past import Past


class Consolidating(Plain):
    """F3EO, told where a stage ends."""

    def __init__(self, stepper: method.FisherStepper) -> None:
        super().__init__(stepper)
        self.optimizer: F3EO = stepper.optimizer

    def end(self, closure: Closure, batches: Batches) -> None:
        """Consolidate what the steps have gathered; no further pass over the data."""
        self.optimizer.consolidate()


def rehearsal(options: Mapping[str, Any], seed: int) -> Rehearsal:
    """Loss and structure of the current batch and of a reservoir, decoupled from both losses."""
    return Rehearsal(
        reservoir(options, seed),
        samples=options["samples"],
        loss=options["memory_loss"],
        structure=options["memory_structure"],
    )


def elastic(options: Mapping[str, Any], seed: int) -> Elastic:
    """The penalty of EWC, with the squares of single samples that F3EO's steps took anyway."""
    return Elastic(FromSteps(), options["penalty"])


def _peer(
    name: str,
    label: str,
    colour: str,
    kind: Any,
    past: Callable[[Mapping[str, Any], int], Past],
    own: Mapping[str, Any],
    space: Space,
    note: str,
    recipe: Mapping[str, Any] = MappingProxyType({}),
) -> Peer:
    def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Consolidating:
        rest = {name: value for name, value in options.items() if name not in own}
        return Consolidating(method.build(model, rest, seed, past=past(options, seed)))

    return Peer(
        name=name,
        label=label,
        colour=colour,
        kind=kind,
        source=Source("f3eo", f"{__name__}.Consolidating", "f3eo"),
        defaults={**METHODS["f3eo"].defaults, **SGD, **own, **recipe},
        space={**SGD_RATE, **STRUCTURE, **space},
        build=stable(build) if recipe else build,
        note=note,
        idle=METHODS["f3eo"].idle,
    )


PEERS = (
    _peer(
        "f3eo_memory",
        "F3EO with a memory",
        "#c62828",
        "memory",
        rehearsal,
        {**MEMORY, "memory_loss": 1.0, "memory_structure": 1.0},
        {"memory_structure": log(0.1, 10.0)},
        note="loss and structure of the current batch and of the memory, the structure direction "
        "orthogonal to both gradients",
    ),
    _peer(
        "f3eo_elastic",
        "F3EO with importance",
        "#e91e63",
        "regularised",
        elastic,
        {"penalty": 10.0},
        {"penalty": PENALTY["strength"]},
        note="EWC whose importance is the mean of squares that F3EO's steps measure; penalty is "
        "its lambda",
    ),
    _peer(
        "f3eo_stable_elastic",
        "F3EO with importance, stable recipe",
        "#ad1457",
        "regularised",
        elastic,
        {"penalty": 10.0},
        {"penalty": PENALTY["strength"], **GAMMA},
        note="f3eo_elastic at the rate lr gamma^(k-1) in stage k",
        recipe=UNMASKED,
    ),
)
