"""The parameters that a step trains, and what their groups say of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from f3eo.closure.snapshot import Snapshot


@dataclass(frozen=True)
class Trained:
    """Parameters that require a gradient, in the order of the groups.

    Args:
        parameters: of all groups.
        inside: for each, whether it belongs to the structure term.
        signs: for each, −1 where its group maximizes.
        lrs: for each, its learning rate.
        names: for each, as `named_parameters()` had it; None where the groups have none.
        others: parameters of the groups that require none.
    """

    parameters: list[Tensor]
    inside: list[bool]
    signs: list[int]
    lrs: list[float]
    names: list[str] | None
    others: list[Tensor]

    @property
    def chosen(self) -> list[Tensor]:
        """The parameters of the structure term."""
        return [p for p, s in zip(self.parameters, self.inside, strict=True) if s]

    @property
    def rates(self) -> list[float]:
        """Learning rates of the chosen in units of the largest."""
        lrs = [lr for lr, s in zip(self.lrs, self.inside, strict=True) if s]
        largest = max(lrs, default=0.0)
        return [lr / largest if largest > 0 else 1.0 for lr in lrs]

    def check_same(self, measured: "Trained", snapshot: Snapshot) -> None:
        """Refuse what was measured for other parameters.

        Raises:
            RuntimeError: with the cure.
        """
        if not snapshot.has_parameters(self.parameters) or measured.inside != self.inside:
            raise RuntimeError(
                "parameters were frozen, thawed or added since accumulate(), or went to another "
                "group: what it gathered belongs to others; call zero_grad() and accumulate again"
            )


def trained(groups: Sequence[dict[str, Any]]) -> Trained:
    """What a step with these groups trains."""
    found = [
        (p, bool(group["structure"]), -1 if group.get("maximize") else 1, lr, name)
        for group in groups
        for lr in [float(group.get("lr", 1.0))]
        for p, name in _named(group)
        if p.requires_grad
    ]
    names = [name for *_, name in found if name is not None]
    return Trained(
        parameters=[p for p, *_ in found],
        inside=[inside for _, inside, *_ in found],
        signs=[sign for _, _, sign, *_ in found],
        lrs=[lr for _, _, _, lr, _ in found],
        names=names if len(names) == len(found) else None,
        others=[p for group in groups for p in group["params"] if not p.requires_grad],
    )


def _named(group: dict[str, Any]) -> Iterator[tuple[Tensor, str | None]]:
    names = group.get("param_names") or [None] * len(group["params"])
    return zip(group["params"], names, strict=True)
