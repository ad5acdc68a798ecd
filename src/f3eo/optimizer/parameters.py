"""The parameters that a step trains, and what their groups say of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Trained:
    """Parameters that require a gradient, in the order of the groups.

    Args:
        parameters: of all groups, P of them.
        structured: for each, whether it takes part in the structure term.
        signs: for each, −1 where its group maximizes, else 1.
        learning_rates: for each.
        names: for each, as `named_parameters()` gave it; None where the groups have none.
        turned: whether any sign is −1.
        frozen: parameters of the groups that require no gradient.
        chosen: the structured parameters.
        rates: their learning rates, in units of the largest.
    """

    parameters: list[Tensor]
    structured: list[bool]
    signs: list[int]
    learning_rates: list[float]
    names: list[str] | None
    turned: bool
    frozen: list[Tensor]
    chosen: list[Tensor]
    rates: list[float]

    def check_same(self, measured: "Trained") -> None:
        """Refuse gradients that were measured for other parameters.

        Args:
            measured: the parameters at the time of the measurement.

        Raises:
            RuntimeError: with the cure.
        """
        if self is measured:
            return
        same = list(map(id, self.parameters)) == list(map(id, measured.parameters))
        if not same or measured.structured != self.structured:
            raise RuntimeError(
                "parameters were frozen, thawed or added since accumulate(), or went to another "
                "group: what it gathered belongs to others; call zero_grad() and accumulate again"
            )


def all_of(groups: Sequence[dict[str, Any]]) -> list[Tensor]:
    """The parameters of all groups, trained or not."""
    return [p for group in groups for p in group["params"]]


def trained_parameters(groups: Sequence[dict[str, Any]]) -> Trained:
    """What a step with these groups trains."""
    parameters: list[Tensor] = []
    structured: list[bool] = []
    signs: list[int] = []
    learning_rates: list[float] = []
    names: list[str] = []
    frozen: list[Tensor] = []
    for group in groups:
        lr = float(group.get("lr", 1.0))
        known = group.get("param_names") or [None] * len(group["params"])
        for p, name in zip(group["params"], known, strict=True):
            if not p.requires_grad:
                frozen.append(p)
                continue
            parameters.append(p)
            structured.append(bool(group["structure"]))
            signs.append(-1 if group.get("maximize") else 1)
            learning_rates.append(lr)
            names += [name] if name is not None else []
    inside = [k for k, s in enumerate(structured) if s]
    largest = max([learning_rates[k] for k in inside], default=0.0)
    return Trained(
        parameters=parameters,
        structured=structured,
        signs=signs,
        learning_rates=learning_rates,
        names=names if len(names) == len(parameters) else None,
        turned=-1 in signs,
        frozen=frozen,
        chosen=[parameters[k] for k in inside],
        rates=[learning_rates[k] / largest if largest > 0 else 1.0 for k in inside],
    )


class Groups:
    """What steps with the same groups train, read again only where a group has changed."""

    def __init__(self) -> None:
        self._settings: list[Any] = []
        self._parameters: list[Tensor] = []
        self._trained: Trained | None = None

    def __call__(self, groups: Sequence[dict[str, Any]]) -> Trained:
        """See `trained_parameters`."""
        settings, parameters = [], list[Tensor]()
        for group in groups:
            parameters += group["params"]
            names = group.get("param_names")
            names = None if names is None else list(names)
            lr, flags = float(group.get("lr", 1.0)), (group["structure"], group.get("maximize"))
            settings.append((lr, flags, names, len(group["params"])))
        settings.append([p.requires_grad for p in parameters])
        same = settings == self._settings and all(map(is_, parameters, self._parameters))
        if self._trained is None or not same:
            self._trained = trained_parameters(groups)
            self._settings, self._parameters = settings, parameters
        return self._trained
