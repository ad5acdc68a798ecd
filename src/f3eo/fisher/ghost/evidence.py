"""Evidence for layouts from gradients of single samples.

The gradient of one sample's loss is zero in every other sample's part of an output, whatever the
code computed in between. So a few such gradients tell where the samples are, and whether they mix.
A gradient of zero fits all layouts: it is no evidence, and as long as all are zero none is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from f3eo.fisher.ghost.recording.layout import Layout, candidates
from f3eo.fisher.ghost.recording.use import Use

PROBES = 16
"""Single samples that are probed in one batch, at most."""


@dataclass(frozen=True)
class Evidence:
    """What is known of the layouts of a use.

    Args:
        fitting: for every output the layouts that fit all probed gradients, the likeliest first.
        nonzero: whether any of these gradients was other than zero.
    """

    fitting: list[list[Layout]]
    nonzero: bool

    @cached_property
    def complete(self) -> bool:
        """Whether no later batch can tell more."""
        return self.nonzero and all(len(layouts) == 1 for layouts in self.fitting)


@dataclass(frozen=True)
class Probe:
    """Gradients of one sample's loss.

    Args:
        sample: i.
        factor: S/B in float16, else 1; the gradients are those of as many times the loss.
        deltas: ∇ℓ_i in all outputs of all uses, in order; None where it does not depend on one.
        leaves: ∇ℓ_i in the parameters.
    """

    sample: int
    factor: float
    deltas: Sequence[Tensor | None]
    leaves: Sequence[Tensor | None]


def evidence(uses: Sequence[Use], probes: Sequence[Probe], samples: int) -> list[Evidence]:
    """What the probes tell of every use.

    Raises:
        ValueError: an operation whose samples mix, with its name and shape.
    """
    known, place = [], 0
    for use in uses:
        fitting, nonzero = [], False
        for shape in use.shapes:
            deltas = [(p.sample, d) for p in probes if (d := p.deltas[place]) is not None]
            nonzero = nonzero or any(bool(d.any()) for _, d in deltas)
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
        known.append(Evidence(fitting, nonzero))
    return known


def undecided_sample(
    uses: Sequence[Use],
    known: Sequence[Evidence],
    deltas: Sequence[Tensor | None],
    samples: int,
    probed: Sequence[int] = (),
) -> int | None:
    """A sample whose gradient would decide between layouts that differ in this batch, or None.

    Args:
        uses: of this batch.
        known: of these uses.
        deltas: gradients of the whole loss in all outputs of all uses.
        samples: B.
        probed: samples that were probed.
    """
    place = 0
    for use, item in zip(uses, known, strict=True):
        for layouts in item.fitting:
            delta = deltas[place]
            place += 1
            if delta is None or (item.nonzero and len(layouts) == 1):
                continue
            owners = [layout.at(use.order).owners(delta, samples) for layout in layouts]
            # Where all layouts agree, or the gradient is zero, any of them gives the right result.
            undecided = delta != 0
            if item.nonzero:
                undecided = undecided & torch.stack(
                    [(o != owners[0]).expand_as(delta) for o in owners]
                ).any(0)
            if not bool(undecided.any()):
                continue
            for layout_owners in owners:
                for i in layout_owners.expand_as(delta)[undecided].unique().tolist():
                    if i not in probed:
                        return i
    return None


def _fits(layout: Layout, gradient: Tensor, sample: int, samples: int) -> bool:
    """Whether the gradient of one sample's loss vanishes outside that sample's part."""
    return not bool((gradient * (layout.owners(gradient, samples) != sample)).any())


def _mixed(
    use: Use, shape: Sequence[int], deltas: Sequence[tuple[int, Tensor]], samples: int
) -> str:
    """The message; samples mix only where the losses of several depend on one element."""
    reached = [(i, d != 0) for i, d in deltas if bool(d.any())]
    overlap = any(bool((a & b).any()) for k, (_, a) in enumerate(reached) for _, b in reached[:k])
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
    if any(_separate(layout, reached, samples) for layout in candidates(shape, samples, None)):
        return (
            f"{output} has the {samples} samples of the batch in another order, which is only "
            f"followed where they are indexed by a permutation (x[order]): keep their order, "
            f"{advice}"
        )
    return (
        f"{output} does not hold the {samples} samples of the batch in equal parts of one "
        f"dimension, so it is unknown whose they are: run all samples as one batch, padded to "
        f"one size (graphs or other samples that cannot be: a list with one mapping a sample as "
        f"the batch, and chunk=1), {advice}"
    )


def _separate(layout: Layout, reached: Sequence[tuple[int, Tensor]], samples: int) -> bool:
    """Whether every gradient stays within the part of one sample, each in another's."""
    owners = [layout.owners(r, samples).expand_as(r)[r].unique().tolist() for _, r in reached]
    places = [o[0] for o in owners if len(o) == 1]
    return len(places) == len(reached) == len(set(places)) and len(places) > 1
