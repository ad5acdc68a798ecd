"""The layer that a parameter belongs to, by its name."""

from collections.abc import Iterable

from torch import Tensor


def layer_of(name: str) -> str:
    """The module that holds a parameter: "blocks.0.weight" is of "blocks.0".

    A parameter of the outermost module is a layer of its own. Those of a parametrized weight
    ("0.parametrizations.weight.original0") are of the module with the weight, and what
    torch.compile puts before a name is left out.
    """
    before, parametrized, rest = name.removeprefix("_orig_mod.").partition("parametrizations.")
    name = before + rest.partition(".")[0] if parametrized else before
    module, _, own = name.rpartition(".")
    return module or own


def layers(named: Iterable[tuple[str, Tensor]]) -> dict[int, str]:
    """The layer of every parameter, by the id of the parameter.

    Args:
        named: parameters with their names, as from `named_parameters()`.
    """
    return {id(p): layer_of(name) for name, p in named}
