"""The state of base and wrapper, one entry for each parameter.

torch.distributed.checkpoint keeps only "state" and "param_groups" of a state dict. So the entry of
a parameter holds all of its state: "base", the state of the base optimizer; "f3eo", the counters,
the same for every parameter.
"""

import copy
from collections.abc import Callable, Iterator, MutableMapping
from functools import cache
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from f3eo.fisher import Estimator
from f3eo.strength import Strength

OF_STRENGTH = "strength_"
"""Before the names of a strength's counters, among those of the wrapper; a dot would not do, since
torch.distributed.checkpoint takes it for its own."""

Counters = Callable[[], dict[str, Any]]
Blank = dict[Tensor, dict[str, Any]]


class State(MutableMapping[Tensor, dict[str, Any]]):
    """parameter → its entry. Assigning an entry writes to the base and to F3EO.

    It is empty before the first step. torch.distributed.checkpoint then calls `step()` to learn the
    form of the state; `blank` holds that form.

    Args:
        base: the base optimizer.
        blank: the state of the base after a first step; None if nobody needs its form.
        counters: gives "f3eo".
    """

    def __init__(
        self,
        base: Optimizer,
        blank: Blank | None,
        counters: Counters,
    ) -> None:
        self._base, self._blank = base, blank
        self._counters = cache(counters)

    def __getitem__(self, parameter: Tensor) -> dict[str, Any]:
        base = self._base.state.get(parameter, {})
        entry: dict[str, Any] = {"base": base, "f3eo": self._counters()}
        if self._blank is not None:
            entry["base"] = base or self._blank.get(parameter, {})
        return entry

    def __setitem__(self, parameter: Tensor, entry: dict[str, Any]) -> None:
        if not isinstance(parameter, Tensor) or entry.keys() - {"base", "structure", "f3eo"}:
            raise TypeError(
                f"F3EO's state is that of its base and its own, and takes no {parameter!r} of "
                f"{sorted(entry)}: wrap F3EO around the optimizer that keeps it, F3EO(model, other)"
            )
        if entry.get("base"):
            self._base.state[parameter] = entry["base"]

    def __delitem__(self, parameter: Tensor) -> None:
        self._base.state.pop(parameter, None)

    def __iter__(self) -> Iterator[Tensor]:
        kept = self._blank is not None or self._base.state
        if not kept and not self._counters()["steps"]:
            return iter(())
        return (p for group in self._base.param_groups for p in group["params"])

    def __len__(self) -> int:
        return sum(1 for _ in self)


def part_counters(estimator: Estimator, strength: Strength) -> dict[str, Any]:
    """The counters of both parts; those of a strength have a prefix."""
    own = {OF_STRENGTH + name: value for name, value in strength.counters().items()}
    return {**estimator.counters(), **own}


def load_parts(estimator: Estimator, strength: Strength, counters: dict[str, Any]) -> None:
    """Both parts continue from counters, which may be of other parts, or older than they are."""
    estimator.forget(counters)
    names = [name for name in counters if name.startswith(OF_STRENGTH)]
    strength.load({name.removeprefix(OF_STRENGTH): counters[name] for name in names})


def wants_blank_state(optimizer: Optimizer) -> bool:
    """Whether torch.distributed.checkpoint calls this `step()`, to learn the form of the state.

    Before that it sets learning rates and gradients to zero, so that nothing moves.
    """
    groups = optimizer.param_groups
    if optimizer.state or any(float(group["lr"]) != 0 for group in groups if "lr" in group):
        return False
    trained = [p for group in groups for p in group["params"] if p.requires_grad]
    return all(p.grad is not None and not p.grad.any() for p in trained)


def blank_state(base: Optimizer) -> Blank:
    """The state of the base after a first step, made by a step of a copy; empty if that fails."""
    ours = [p for group in base.param_groups for p in group["params"]]
    try:
        twin = copy.deepcopy(base)
        theirs = [p for group in twin.param_groups for p in group["params"]]
        for p, t in zip(ours, theirs, strict=True):
            t.grad = p.grad  # a copy of a parameter has none
        twin.step()
    except Exception:  # the form of its state is then unknown before its first step
        return {}
    return {p: dict(twin.state.get(t, {})) for p, t in zip(ours, theirs, strict=True)}


def split_state(
    state_dict: dict[str, Any], base: Optimizer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a state dict of F3EO into its own counters and the rest.

    Args:
        state_dict: from `F3EO.state_dict` or from torch.distributed.checkpoint.
        base: the base optimizer.

    Returns:
        the counters, and the state dict with the part of the base in "base". Structure directions,
        which version 0.2 kept between measurements, are left out.

    Raises:
        ValueError: a state dict of another optimizer, or one without the state of the base.
    """
    entries = {k: e for k, e in state_dict.get("state", {}).items() if isinstance(e, dict)}
    if "base" in state_dict and "f3eo" in state_dict:
        own, inner = state_dict["f3eo"], state_dict["base"]
    else:
        own = next((e["f3eo"] for e in entries.values() if "f3eo" in e), None)
        if own is None:
            raise ValueError(
                f"not a state dict of F3EO (keys {sorted(state_dict)}): load one of the base "
                f"optimizer with optimizer.base.load_state_dict"
            )
        if {"state", "param_groups"} - base.state_dict().keys():
            raise ValueError(
                f"{type(base).__name__} keeps its state in a form of its own, which "
                f"torch.distributed.checkpoint does not carry: save optimizer.state_dict() with "
                f"torch.save and load that"
            )
        blank = own.get("blank")  # saved before the first step
        inner = {
            "state": {k: e["base"] for k, e in entries.items() if e.get("base") and not blank},
            "param_groups": state_dict["param_groups"],
        }
    return own, {**state_dict, "state": {}, "base": inner}
