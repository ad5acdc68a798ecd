"""Exact per-sample gradients of operations without a layer rule, by torch.func."""

from collections.abc import Sequence

from torch import Tensor
from torch.func import vjp

from f3eo.decompositions.mode import flat
from f3eo.fisher.ghost.each_sample import each_sample
from f3eo.fisher.ghost.gradients.contribution import Contribution
from f3eo.fisher.ghost.recording.layout import SplitUse


def fallback(split: SplitUse) -> Contribution:
    """G_i = (∂f(x_i, w)/∂w)ᵀ δ_i, each sample as a batch of one, for every parameter of a use.

    Args:
        split: the operation f, its arguments x_i and the gradients δ_i of Σℓ in its outputs.

    Returns:
        The contribution; it is computed when its rows are.
    """
    use = split.use
    sampled = [k for k, s in enumerate(use.sampled) if s]
    samples = [split.tensors[k] for k in sampled]
    index = {id(p): k for k, p in enumerate(use.parameters)}
    places = [(k, index[id(t)]) for k, t in enumerate(split.tensors) if id(t) in index]

    def single(xs: list[Tensor], ds: list[Tensor]) -> tuple[Tensor, ...]:
        def forward(*parameters: Tensor) -> list[Tensor]:
            tensors = list(split.tensors)
            for k, x in zip(sampled, xs, strict=True):
                tensors[k] = x
            for k, number in places:
                tensors[k] = parameters[number]
            args, kwargs = use.call.substituted(tensors)
            outputs = flat((use.call.func(*args, **kwargs),))
            return [outputs[i] for i in use.outputs]

        return vjp(forward, *use.parameters)[1](ds)

    def rows(part: slice, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        chosen = [t[part] for t in tensors]
        own = chosen[: len(samples)], chosen[len(samples) :]
        return each_sample(single, own, use.parameters, randomness="same")

    return Contribution(use.parameters, use.sources, rows, [*samples, *split.deltas])
