"""Per-sample gradients of every use, by its layer rule or by the fallback."""

import inspect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from f3eo.arguments import Arguments
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
    uses, layouts, nested = _reached(uses, layouts, deltas)
    splits = split_uses(uses, layouts, nested, losses, attached=attached)
    arguments = [u.call.substituted(s.tensors) for u, s in zip(uses, splits, strict=True)]
    by_rule = [
        use.rule(_single(split.deltas), *args, **kwargs) if use.rule is not None else None
        for use, split, (args, kwargs) in zip(uses, splits, arguments, strict=True)
    ]
    named = [_named_terms(*row) for row in zip(uses, splits, arguments, by_rule, strict=True)]
    contributions: list[Contribution] = []
    for use, split, terms in zip(uses, splits, named, strict=True):
        if terms is None:
            contributions.append(fallback(use, split))
        else:
            contributions += [contribution(*row) for row in terms]
    return contributions


def _reached(
    uses: Sequence[Use], layouts: Sequence[Sequence[Layout]], deltas: Sequence[Tensor | None]
) -> tuple[list[Use], list[Sequence[Layout]], list[list[Tensor | None]]]:
    """The uses that the losses depend on, their layouts, and the gradients in their outputs."""
    following, rows = iter(deltas), []
    for use, own in zip(uses, layouts, strict=True):
        gradients = [next(following) for _ in use.edges]
        if any(d is not None for d in gradients):
            _refuse_overwritten(use)
            rows.append((use, own, gradients))
    return [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]


def _single(deltas: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    return deltas[0] if len(deltas) == 1 else tuple(deltas)


def _named_terms(
    use: Use, split: SplitUse, arguments: Arguments, terms: Mapping[str, Any] | None
) -> list[tuple[Tensor, Sources, Term]] | None:
    """The terms of all parameters of a use; None where the rule does not give one of them."""
    if use.rule is None or terms is None:
        return None
    args, kwargs = arguments
    if isinstance(use.call.func, type):
        named = dict(args[0].named_parameters())
    else:
        named = dict(zip(_names(use.rule), (split.deltas, *args), strict=False)) | kwargs
    rows = []
    for p, sources in zip(use.parameters, use.sources, strict=True):
        names = [name for name, value in named.items() if value is p]
        if not names or any(name not in terms for name in names):
            return None
        rows += [(p, sources, terms[name]) for name in names]
    return [(p, ids, term() if callable(term) else term) for p, ids, term in rows]


@lru_cache(maxsize=256)
def _names(rule: LayerRule) -> tuple[str, ...]:
    return tuple(inspect.signature(rule).parameters)


def _refuse_overwritten(use: Use) -> None:
    for tensor, version in use.versions:
        if tensor._version != version:
            raise RuntimeError(
                f"an input of {use.name}, of shape {tuple(tensor.shape)}, was modified in place "
                f"after it was used: per-sample gradients need its value; use the out-of-place "
                f"operation there"
            )
