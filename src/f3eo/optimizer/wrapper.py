"""An optimizer around another one: they share groups, keep separate states, and save both."""

import warnings
from abc import ABC
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from f3eo.optimizer.accumulated import Accumulated
from f3eo.optimizer.checks import check_parameters
from f3eo.optimizer.state import Blank, State, split_state
from f3eo.optimizer.step_record import Observer, StepRecord


class Wrapper(Optimizer, ABC):
    """Groups, state and copies of an optimizer that wraps another one.

    Args:
        base: the wrapped optimizer.
        model: whose parameters it trains, if known.
        generator: source of randomness; its state is saved, too.
    """

    steps: int
    skipped: int
    trace: Tensor | None
    neutral_scaler: bool = False
    """Whether a GradScaler that steps it has a scale of 1, as `f3eo.integrations` sees to."""
    takes_shards: bool = False
    """Whether its parameters may be DTensors."""

    def __init__(
        self, base: Optimizer, model: nn.Module | None, generator: torch.Generator | None
    ) -> None:
        self.base = base
        self.model = model
        self.generator = generator
        self.steps = 0
        self.skipped = 0
        self.trace = None
        self._accumulated: Accumulated | None = None
        self._blank: Blank | None = None
        self._observers: OrderedDict[int, Observer] = OrderedDict()
        self._flags: list[bool] = []
        """For every group, whether it takes part in the structure term."""
        self._built = False
        defaults = {**getattr(base, "defaults", {}), "structure": True}
        super().__init__(base.param_groups, defaults)
        self._built = True
        check_parameters(self.param_groups, model, sharded=self.takes_shards)

    # Groups.

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The groups of the base optimizer, the same objects."""
        groups = self.base.param_groups
        # Groups that the base has loaded by itself lack the flag.
        flags = self._flags + [True] * len(groups)
        for group, flag in zip(groups, flags, strict=False):
            group.setdefault("structure", flag)
        self._flags = [group["structure"] for group in groups]
        return groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        if self._built:  # Optimizer.__init__ begins with none
            self.base.param_groups[:] = groups  # in place: wrappers share the list

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer, and so to this one."""
        if not self._built:  # called by Optimizer.__init__, with groups that the base has taken
            param_group.setdefault("structure", True)
            return
        if isinstance(param_group, dict):  # else the base says what is wrong
            param_group["params"] = _listed(param_group["params"])
            check_parameters([param_group], self.model, sharded=self.takes_shards)
        self.base.add_param_group(param_group)
        param_group.setdefault("structure", self.defaults["structure"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients, and what `accumulate` gathered."""
        self._accumulated = None
        super().zero_grad(set_to_none)

    # Observers.

    def observe(self, observer: Observer) -> RemovableHandle:
        """Call a function after every step that is made, with the record of that step.

        It sees what the step has measured anyway, and is called when the base has stepped; not at
        a step that is skipped. It is no part of the state, nor of copies.

        Args:
            observer: called with a `StepRecord`.

        Returns:
            a handle; its `remove()` ends this.

        Raises:
            TypeError: no function.
        """
        if not callable(observer):
            raise TypeError(
                f"an observer is a function of a StepRecord, received {observer!r}; to record a "
                f"run use f3eo.monitor.Monitor(optimizer)"
            )
        handle = RemovableHandle(self._observers)
        self._observers[handle.id] = observer
        return handle

    def _tell(self, record: StepRecord) -> None:
        for observer in list(self._observers.values()):
            observer(record)

    # State.

    @property
    def state(self) -> State:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The state of base and wrapper, one entry for each parameter."""
        return State(self.base, self._blank, self._flat_counters)

    @state.setter
    def state(self, state: Mapping[Tensor, dict[str, Any]]) -> None:
        self.state.update(state)

    def _counters(self) -> dict[str, Any]:
        generator = None if self.generator is None else self.generator.get_state()
        return {
            "steps": self.steps,
            "skipped": self.skipped,
            "trace": self.trace,
            "generator": generator,
        }

    def _flat_counters(self) -> dict[str, Any]:
        """Counters as tensors and numbers, with the same keys at every step."""
        counters = {k: v for k, v in self._counters().items() if v is not None}
        counters.setdefault("trace", torch.tensor(torch.nan, dtype=torch.float64))
        return {**counters, "blank": int(self._blank is not None)}

    def state_dict(self) -> dict[str, Any]:
        """State of F3EO ("state", "param_groups", "f3eo") and of its base ("base").

        Accumulated gradients are not part of it; a warning says so.
        """
        if self._accumulated is not None:
            warnings.warn(
                "state_dict() between accumulate() and step(): what was accumulated is not saved; "
                "save after step()",
                stacklevel=3,
            )
        # The first hook on the result: hooks of the user see all parts.
        parts = self.register_state_dict_post_hook(lambda _, s: self._add_parts(s), prepend=True)
        try:
            return super().state_dict()
        finally:
            parts.remove()

    def _add_parts(self, state: dict[str, Any]) -> None:
        state["base"] = self.base.state_dict()
        state["f3eo"] = self._counters()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both parts, from `state_dict()` or from torch.distributed.checkpoint.

        Raises:
            ValueError: a state dict of another optimizer.
        """
        # The last hook on the argument: it sees the changes by hooks of the user.
        parts = self.register_load_state_dict_pre_hook(lambda _, s: self._load_parts(s))
        try:
            super().load_state_dict(state_dict)
        finally:
            parts.remove()

    def _load_parts(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        own, state_dict = split_state(state_dict, self.base)
        self.base.load_state_dict(state_dict["base"])
        self._load_counters(own)
        self._accumulated = self._blank = None
        return state_dict

    def _load_counters(self, counters: dict[str, Any]) -> None:
        steps, skipped, trace = counters["steps"], counters["skipped"], counters.get("trace")
        self.steps, self.skipped = steps, skipped
        self.trace = None if trace is None or trace.isnan() else trace
        if self.generator is not None and counters.get("generator") is not None:
            self.generator.set_state(counters["generator"].cpu())

    # Copies.

    def __getstate__(self) -> dict[str, Any]:
        hooks = {key for key in self.__dict__ if key.startswith("_optimizer_")}
        # A scheduler has put a "step" here that is bound to this object.
        dropped = hooks | {"_accumulated", "_observers", "_zero_grad_profile_name"}
        dropped |= {"step", "_opt_called"}
        kept = {k: v for k, v in self.__dict__.items() if k not in dropped}
        return kept | {"_accumulated": None, "_observers": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy, or state and groups from a state dict."""
        parts = {k: state[k] for k in ("param_groups", "state") if k in state}
        super().__setstate__({k: v for k, v in state.items() if k not in parts})
        for name, value in parts.items():
            setattr(self, name, value)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        # torch.amp.GradScaler asks for this before it steps an optimizer. Where it is True, it
        # leaves the decision to skip a step to the optimizer, as several processes need.
        if self.neutral_scaler:
            return True
        raise RuntimeError(
            f"{type(self).__name__} does not step under a GradScaler, whose scale its own backward "
            f"passes do not have; F3EO scales those through float16 by itself: call "
            f"optimizer.step(closure, *batch), without the scaler or with GradScaler(enabled=False)"
        )


def _listed(parameters: Any) -> Any:
    """Parameters as a list; a set is left for torch to refuse."""
    if isinstance(parameters, Tensor):
        return [parameters]
    return parameters if isinstance(parameters, set) else list(parameters)
