"""Tensors by the parameter they belong to, and as lists, which is how a state keeps them."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

ByParameter = dict[Tensor, Tensor]
"""By the parameter itself, so that a copy of both belongs together again."""


def parameters_of(model: nn.Module | Iterable[Tensor]) -> list[Tensor]:
    """The parameters of a module, or these."""
    return list(model.parameters() if isinstance(model, nn.Module) else model)


def listed(values: Mapping[Tensor, Tensor], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Copies in the order of the parameters, None where one has none."""
    return [None if (v := values.get(p)) is None else v.clone() for p in parameters]


def by_parameter(values: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> ByParameter:
    """The inverse of `listed`.

    Raises:
        ValueError: other shapes, or more values than parameters.
    """
    if len(values) > len(parameters):
        raise ValueError(
            f"the state belongs to {len(values)} parameters, and here are {len(parameters)}: load "
            f"it with the parameters of the run that saved it"
        )
    found = ByParameter()
    for number, (value, p) in enumerate(zip(values, parameters, strict=False)):
        if value is None:
            continue
        if value.shape != p.shape:
            raise ValueError(
                f"the state of parameter {number} has shape {tuple(value.shape)}, received one of "
                f"{tuple(p.shape)}: load it with the parameters of the run that saved it"
            )
        found[p] = value.to(p.device, copy=True)
    return found
