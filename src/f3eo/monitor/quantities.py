"""What a monitor can say of a step: pure functions of its record, by the name of the quantity."""

from collections.abc import Callable, Mapping
from math import ceil, isnan, nan

import torch
from torch import Tensor

from f3eo.optimizer import StepRecord

Layers = Mapping[int, str]
"""The layer of every parameter, by the id of the parameter."""

Values = dict[str, Tensor | float]
"""Scalars by their names, without the prefix."""

Quantity = Callable[[StepRecord, Layers], Values]
"""Gives nothing where the step did not measure it."""


def loss(record: StepRecord, layers: Layers) -> Values:
    """`loss`: L, the mean over the samples, in the unit of the losses."""
    return {"loss": record.loss}


def gradient_norm(record: StepRecord, layers: Layers) -> Values:
    """`gradient_norm`: ‖∇L‖ over all parameters that train, before `max_norm`."""
    return {"gradient_norm": record.squared**0.5}


def trace(record: StepRecord, layers: Layers) -> Values:
    """`trace`: Tr(D F D) over the structured parameters, with the metric D of the estimator."""
    return {} if record.trace is None else {"trace": record.trace}


def trace_euclidean(record: StepRecord, layers: Layers) -> Values:
    """`trace_euclidean`: Tr F̂, the same with D = 1, where the step knows it."""
    found = None if record.norms is None else record.norms.euclidean_trace()
    return {} if found is None else {"trace_euclidean": found}


def trace_by_layer(record: StepRecord, layers: Layers) -> Values:
    """`trace/LAYER`: the part of a layer in `trace`; their sum is `trace`."""
    sums: Values = {}
    for key, own in ({} if record.norms is None else record.norms.trace_by_leaf()).items():
        name = f"trace/{layers[key]}"
        sums[name] = sums[name] + own if name in sums else own
    return sums


def strength(record: StepRecord, layers: Layers) -> Values:
    """`strength`: λ as the step took it, for all steps that the measurement serves."""
    return {} if record.strength is None else {"strength": record.strength}


def structure_norm(record: StepRecord, layers: Layers) -> Values:
    """`structure_norm`: ‖h‖; `direction_norm`: ‖d‖, d = h − c g by the rule; both Euclidean."""
    values: Values = {}
    if record.structure is not None:
        values["structure_norm"] = record.products.hh**0.5
    if record.distance is not None:
        values["direction_norm"] = record.distance
    return values


def cosine(record: StepRecord, layers: Layers) -> Values:
    """`cosine`: ⟨g, h⟩/‖g‖‖h‖ over the structured parameters; NaN where g or h is 0."""
    if record.structure is None:
        return {}
    gg, gh, hh = record.products.gg, record.products.gh, record.products.hh
    return {"cosine": gh / (gg * hh) ** 0.5 if gg * hh > 0 else nan}


def share_off_gradient(record: StepRecord, layers: Layers) -> Values:
    """`share_off_gradient`: ‖h⊥‖/‖h‖ = √(1 − cosine²), h⊥ the part of h orthogonal to g."""
    found = cosine(record, layers)
    if not found:
        return {}
    c = float(found["cosine"])
    return {"share_off_gradient": c if isnan(c) else max(0.0, 1 - c * c) ** 0.5}


TOP = 0.1
"""The part of the samples that `memorisation` calls the top."""


def memorisation(record: StepRecord, layers: Layers) -> Values:
    """`memorisation/top_tenth`: the share of the trace that the tenth with the longest ∇ℓ_i has.

    0.1 where all samples are alike, 1 where a few carry it: mislabelled or memorised ones.
    """
    if record.norms is None:
        return {}
    own = record.norms.contributions()
    if not len(own):
        return {}
    top = torch.topk(own, ceil(TOP * len(own))).values.sum()
    return {"memorisation/top_tenth": top / own.sum()}


QUANTITIES: Mapping[str, Quantity] = {
    "loss": loss,
    "gradient_norm": gradient_norm,
    "trace": trace,
    "trace_euclidean": trace_euclidean,
    "trace_by_layer": trace_by_layer,
    "strength": strength,
    "structure_norm": structure_norm,
    "cosine": cosine,
    "share_off_gradient": share_off_gradient,
    "memorisation": memorisation,
}
"""By name; `noise_scale`, which has a memory, is the monitor's own."""
