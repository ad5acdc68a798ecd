"""Per-sample gradients of every use, by its layer rule or by the fallback."""

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from f3eo.decompositions.mode import Arguments
from f3eo.fisher.ghost.gradients.contribution import Contribution, contribution
from f3eo.fisher.ghost.gradients.fallback import fallback
from f3eo.fisher.ghost.gradients.terms import Term
from f3eo.fisher.ghost.recording.layout import Layout, SplitUse, split_uses
from f3eo.fisher.ghost.recording.roles import Sources
from f3eo.fisher.ghost.recording.use import Use
from f3eo.fisher.ghost.registry import LayerRule


def per_use_gradients(
    uses: Sequence[Use],
    layouts: Sequence[Sequence[Layout]],
    deltas: Sequence[Tensor | None],
    losses: Tensor,
    *,
    attached: bool,
) -> list[Contribution]:
    """What every use contributes to the per-sample gradients of its parameters.

    Args:
        uses: the recorded operations.
        layouts: of the outputs of each.
        deltas: gradients of Σℓ in all outputs of all uses, in order.
        losses: (B,); gives B, dtype and device.
        attached: whether the contributions keep their graph.

    Raises:
        RuntimeError: an input of a use was modified in place after it.
    """
    _refuse_overwritten(uses)
    splits = split_uses(uses, layouts, deltas, losses, attached=attached)
    arguments, results = [], []
    for split in splits:
        arguments.append(split.use.call.substituted(split.tensors))
    for split, (args, kwargs) in zip(splits, arguments, strict=True):
        rule = split.use.rule
        results.append(None if rule is None else rule(split.delta, *args, **kwargs))
    named = [_named_terms(*row) for row in zip(splits, arguments, results, strict=True)]
    contributions: list[Contribution] = []
    for split, terms in zip(splits, named, strict=True):
        if terms is None:
            contributions.append(fallback(split))
        else:
            for parameter, sources, term in terms:
                contributions.append(contribution(parameter, sources, term))
    return contributions


def _named_terms(
    split: SplitUse, arguments: Arguments, terms: Mapping[str, Any] | None
) -> list[tuple[Tensor, Sources, Term]] | None:
    """The terms of all parameters of a use; None where the rule does not give one of them."""
    use = split.use
    if use.rule is None or terms is None:
        return None
    args, kwargs = arguments
    if isinstance(use.call.func, type):
        named = dict(args[0].named_parameters())
    else:
        named = dict(zip(_names(use.rule), (split.delta, *args), strict=False)) | kwargs
    rows: list[tuple[Tensor, Sources, Any]] = []
    for p, sources in zip(use.parameters, use.sources, strict=True):
        names = [name for name, value in named.items() if value is p]
        if not names or any(name not in terms for name in names):
            return None
        rows += [(p, sources, terms[name]) for name in names]
    return [(p, ids, term if isinstance(term, Term) else term()) for p, ids, term in rows]


@lru_cache(maxsize=256)
def _names(rule: LayerRule) -> tuple[str, ...]:
    return tuple(inspect.signature(rule).parameters)


def _refuse_overwritten(uses: Sequence[Use]) -> None:
    for use in uses:
        for tensor, version in use.versions:
            if tensor._version != version:
                raise RuntimeError(
                    f"an input of {use.name}, of shape {tuple(tensor.shape)}, was modified in "
                    f"place after it was used: per-sample gradients need its value; use the "
                    f"out-of-place operation there"
                )
