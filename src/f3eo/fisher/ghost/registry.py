"""Layer rules: per-sample gradients of an operation's parameters, registered by decorator.

A layer rule is called as `rule(delta, *args, **kwargs)` with the arguments of the operation and
returns a `Term` for each argument that is a parameter, by the argument's name in the rule's own
signature. Everything that carries samples has a new first dimension B, in front of what the
operation gets if each sample is alone, as a batch of one: `F.linear` on (B, p) gets x as (B, 1, p)
and delta, the gradient of Σℓ in the operation's output, as (B, 1, q). Parameters come as they are.

    @register_layer(torch.nn.functional.linear)
    def linear(delta, input, weight, bias=None):
        return {"weight": Outer(delta.flatten(1, -2), input.flatten(1, -2)), ...}

A layer rule must be differentiable. A term that may not be needed can be a function that returns
it. A rule returns None, or leaves a parameter out, where it does not cover the arguments: the exact
fallback then computes their gradients. A module class can be registered instead of a function; its
rule is called as `rule(delta, module, *args, **kwargs)` and names the module's parameters.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

LayerRule = Callable[..., Mapping[str, Any] | None]
R = TypeVar("R", bound=LayerRule)
P = TypeVar("P", bound=Callable[..., Any])

RULES: dict[Any, LayerRule] = {}
"""The layer rule of every operation or module class."""

MODULES: set[type] = set()
"""Module classes that have, or had, a layer rule."""

SHIFTED: dict[Any, Callable[..., Any]] = {}
"""For operations in the second pass: the function with parameters of each sample's own."""


def register_layer(*operations: Callable[..., Any] | type[nn.Module]) -> Callable[[R], R]:
    """Use the decorated layer rule for these torch functions or module classes.

    It replaces a rule that is registered for them.

    Args:
        operations: functions as `torch.overrides` names them (`torch.nn.functional.conv2d`,
            `torch.Tensor.add`), or subclasses of `torch.nn.Module`; a module's subclasses are not
            included, since their forward may differ.

    Raises:
        TypeError: an operation that is neither.
    """
    for operation in operations:
        if not callable(operation):
            raise TypeError(
                f"register_layer takes functions or Module classes, received {operation!r}"
            )

    def decorate(rule: R) -> R:
        for operation in operations:
            RULES[operation] = rule
            if isinstance(operation, type):
                MODULES.add(operation)
        return rule

    return decorate


def register_shifted(*operations: Callable[..., Any]) -> Callable[[P], P]:
    """Use the decorated function for these operations in the second pass.

    It is called with the operation's arguments: what carries samples as in a layer rule, (B, …)
    with each sample a batch of one, and `SampleParameter` in place of parameters. It returns the
    output (B, …), or None where it does not cover the arguments. Operations without one run under
    `torch.func.vmap`.
    """

    def decorate(function: P) -> P:
        SHIFTED.update(dict.fromkeys(operations, function))
        return function

    return decorate
