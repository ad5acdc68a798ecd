"""The base optimizer: built or taken as it is, and refused where gradients are not enough."""

import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from f3eo.optimizer.wrapper import Wrapper
from f3eo.shown import differs

Base = type[Optimizer] | Callable[..., Optimizer] | Optimizer

CURE = "use SGD, AdamW or another that steps from gradients alone"


def build_base(base: Base, model: nn.Module | Iterable[Any], options: dict[str, Any]) -> Optimizer:
    """An instance of the base optimizer.

    Args:
        base, model, options: see `F3EO`.

    Raises:
        TypeError, ValueError: no optimizer, or one that needs more than gradients to step.
    """
    if isinstance(base, Optimizer):
        if options:
            raise ValueError(
                f"options {sorted(options)} belong to the base optimizer, which is already built: "
                f"set them where it is constructed, or pass its class"
            )
    elif callable(base):
        base = base(model.parameters() if isinstance(model, nn.Module) else model, **options)
    if not isinstance(base, Optimizer) or isinstance(base, Wrapper):
        raise TypeError(
            f"base must be a torch.optim.Optimizer class or instance (SGD, AdamW, …), received "
            f"{base!r}"
        )
    name = type(base).__name__
    if not hasattr(base, "param_groups"):
        raise TypeError(f"{name} has no parameter groups and cannot be a base: {CURE}")
    closure = inspect.signature(type(base).step).parameters.get("closure")
    needed = closure is not None and closure.default is inspect.Parameter.empty
    if needed or hasattr(base, "first_step"):
        raise TypeError(
            f"{name} evaluates the loss several times a step and cannot be a base: {CURE}"
        )
    # A wrapper that does not call Optimizer.__init__ lacks what torch's own methods use.
    for hooks in ("step", "state_dict", "load_state_dict"):
        for when in ("pre", "post"):
            vars(base).setdefault(f"_optimizer_{hooks}_{when}_hooks", OrderedDict())
    return base


def refuse_base(base: Optimizer, error: Exception, *, first: bool) -> None:
    """Blame the base for an error in the first step that it was given.

    Args:
        base: the base optimizer.
        error: raised by its step.
        first: whether it has never made a step here.

    Raises:
        TypeError: at a first step, with the cure; memory errors are left alone.
    """
    if first and not isinstance(error, torch.OutOfMemoryError):
        raise TypeError(
            f"{type(base).__name__} failed at its first step from gradients alone: {error!r}; if "
            f"it needs a closure, hooks or the graph of the gradient, it cannot be a base: {CURE}"
        ) from error


def warn_of_unknown_metric(base: Optimizer, stacklevel: int) -> None:
    """Warn that the structure term is projected without the preconditioner of the base.

    Args:
        base: the base optimizer.
        stacklevel: as in `warnings.warn`, from the caller of this function.
    """
    warnings.warn(
        f"F3EO knows no metric of {type(base).__name__}: the structure term is projected in the "
        f"Euclidean metric and joins the gradient, so the base may turn a part of it back into the "
        f"loss; see f3eo.extend.register_metric",
        stacklevel=stacklevel + 1,
    )


def call_of(base: Optimizer) -> str:
    """The call that builds the base, as its groups and defaults tell: lr, and what was set."""
    known = inspect.signature(type(base).__init__).parameters
    group = base.param_groups[0] if len(base.param_groups) == 1 else {}
    values = {k: group.get(k, v) for k, v in getattr(base, "defaults", {}).items() if k in known}
    return f"{type(base).__name__}({', '.join(changed(values, known))})"


def describe(
    optimizer: Wrapper,
    parts: tuple[str, ...],
    always: tuple[str, ...],
    never: tuple[str, ...] = (),
) -> str:
    """The call that builds an optimizer, and a line for each of its groups if there are several.

    Args:
        optimizer: keeps the arguments of its `__init__` under their names.
        parts: arguments that are shown without their names.
        always: arguments that are shown even where they are the default.
        never: arguments that are not shown.
    """
    own = inspect.signature(type(optimizer).__init__).parameters
    rest = {k: getattr(optimizer, k) for k in own if k not in parts and hasattr(optimizer, k)}
    rest = {k: v for k, v in rest.items() if k not in (*always, *never, "model", "base")}
    shown = [
        call_of(optimizer.base),
        *(repr(getattr(optimizer, name)) for name in parts),
        *(f"{name}={getattr(optimizer, name)!r}" for name in always),
        *changed(rest, own),
    ]
    lines = [f"{type(optimizer).__name__}({', '.join(shown)})"]
    groups = optimizer.param_groups if len(optimizer.param_groups) > 1 else []
    for i, group in enumerate(groups):
        values = changed(group, {k: v for k, v in optimizer.defaults.items() if k in group})
        lines.append(", ".join([f"  group {i}: {len(group['params'])} parameters", *values]))
    return "\n".join(lines)


def changed(values: dict[str, Any], known: Mapping[str, Any]) -> list[str]:
    """`name=value` for lr and for every value that is not the default.

    Args:
        values: by name.
        known: defaults by name, or parameters of a signature; other names are not shown.
    """
    defaults = {k: getattr(v, "default", v) for k, v in known.items()}
    return [
        f"{k}={v!r}"
        for k, v in values.items()
        if k in defaults and (k == "lr" or differs(v, defaults[k]))
    ]
