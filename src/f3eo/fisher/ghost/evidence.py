"""Which layout is right: gradients of single samples tell.

The gradient of one sample's loss is zero in every other sample's part of an output, whatever the
code did to get there. So a few such gradients show where the samples are, and whether they mix.
Where a gradient is zero all layouts fit: that is no evidence, and none is needed until it is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from f3eo.fisher.ghost.recording.layout import Layout, candidates
from f3eo.fisher.ghost.recording.use import Use

PROBES = 16
"""Single samples looked at in one batch, at most."""


@dataclass(frozen=True)
class Evidence:
    """What is known of the layouts of a use.

    Args:
        fitting: for every output the layouts that fit all gradients seen, the likeliest first.
        seen: whether any of these gradients was other than zero.
    """

    fitting: list[list[Layout]]
    seen: bool

    @property
    def complete(self) -> bool:
        """Whether no later batch can tell more."""
        return self.seen and all(len(found) == 1 for found in self.fitting)

    def layouts(self, use: Use) -> list[Layout]:
        """The likeliest layout of every output, in the order of this batch."""
        return [found[0].at(use.order) for found in self.fitting]


@dataclass(frozen=True)
class Probe:
    """Gradients of one sample's loss.

    Args:
        sample: i.
        deltas: ∇ℓ_i in all outputs of all uses, in order; None where it does not depend on one.
        leaves: ∇ℓ_i in the parameters.
    """

    sample: int
    deltas: Sequence[Tensor | None]
    leaves: Sequence[Tensor | None]


def evidence(uses: Sequence[Use], probes: Sequence[Probe], samples: int) -> list[Evidence]:
    """What the probes say of every use.

    Raises:
        ValueError: an operation whose samples mix, by its name and shape.
    """
    found, place = [], 0
    for use in uses:
        fitting, seen = [], False
        for shape in use.shapes:
            deltas = [(p.sample, d) for p in probes if (d := p.deltas[place]) is not None]
            seen = seen or any(bool(d.any()) for _, d in deltas)
            fitting.append(
                [
                    layout
                    for layout in candidates(shape, samples, use.order)
                    if all(_fits(layout, d, i, samples) for i, d in deltas)
                ]
            )
            if not fitting[-1]:
                raise ValueError(_mixed(use, shape, deltas, samples))
            place += 1
        found.append(Evidence(fitting, seen))
    return found


def wanted(
    uses: Sequence[Use],
    known: Sequence[Evidence],
    deltas: Sequence[Tensor | None],
    samples: int,
    probed: Sequence[int] = (),
) -> int | None:
    """A sample whose gradient would tell what is not known and matters in this batch, or None.

    Args:
        uses: of this batch.
        known: of these uses.
        deltas: gradients of the whole loss in all outputs of all uses.
        samples: B.
        probed: samples that have been asked.
    """
    place = 0
    for use, item in zip(uses, known, strict=True):
        for layouts in item.fitting:
            delta = deltas[place]
            place += 1
            if delta is None or (item.seen and len(layouts) == 1):
                continue
            owners = [layout.at(use.order).owners(delta, samples) for layout in layouts]
            # Where all layouts say the same, or nothing arrives, any of them serves.
            open_ = delta != 0
            if item.seen:
                open_ = open_ & torch.stack(
                    [(o != owners[0]).expand_as(delta) for o in owners]
                ).any(0)
            if not bool(open_.any()):
                continue
            for layout_owners in owners:
                for i in layout_owners.expand_as(delta)[open_].unique().tolist():
                    if i not in probed:
                        return i
    return None


def _fits(layout: Layout, gradient: Tensor, sample: int, samples: int) -> bool:
    """Whether the gradient of one sample's loss vanishes outside that sample's part."""
    return not bool((gradient * (layout.owners(gradient, samples) != sample)).any())


def _mixed(
    use: Use, shape: Sequence[int], deltas: Sequence[tuple[int, Tensor]], samples: int
) -> str:
    """What a user is told: mixed is only what more than one sample's loss depends on."""
    seen = [(i, d != 0) for i, d in deltas if bool(d.any())]
    overlap = any(bool((a & b).any()) for k, (_, a) in enumerate(seen) for _, b in seen[:k])
    output = f"{use.name} with output of shape {tuple(shape)}"
    advice = (
        f"hand the batch to the closure as arguments, or use estimator=MiniBatch(); where a table "
        f"of constants is {samples} long, too, take another batch size"
    )
    if overlap:
        return (
            f"{output} mixes the {samples} samples of the batch, so per-sample gradients are not "
            f"defined there: keep every sample's output a function of that sample alone (no batch "
            f"statistics), {advice}"
        )
    if any(_alone(layout, seen, samples) for layout in candidates(shape, samples, None)):
        return (
            f"{output} has the {samples} samples of the batch in another order, which is only "
            f"followed where they are indexed by a permutation (x[order]): keep their order, "
            f"{advice}"
        )
    return (
        f"{output} does not hold the {samples} samples of the batch in equal parts of one "
        f"dimension, so it cannot be told whose they are: run all samples as one batch, padded to "
        f"one size, {advice}"
    )


def _alone(layout: Layout, seen: Sequence[tuple[int, Tensor]], samples: int) -> bool:
    """Whether every gradient stays within one sample's part, if another's than its own."""
    owners = [layout.owners(s, samples).expand_as(s)[s].unique().tolist() for _, s in seen]
    places = [o[0] for o in owners if len(o) == 1]
    return len(places) == len(seen) == len(set(places)) and len(places) > 1
