"""Parameters by name, layer and group."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn

Name = str | int
"""A parameter's name in the model, or its `id` where it has none."""


def names_of(model: nn.Module | None, parameters: Sequence[Tensor]) -> list[Name]:
    """The name of every parameter; one that is tied has its first."""
    known = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    return [known.get(id(p), id(p)) for p in parameters]


def layers(names: Sequence[Name]) -> dict[Name, list[int]]:
    """Positions by layer: the name up to its last dot, "" at the root; by id where there is none.

    >>> layers(["0.weight", "0.bias", "scale"])
    {'0': [0, 1], '': [2]}
    """
    found: dict[Name, list[int]] = {}
    for position, name in enumerate(names):
        layer = name.rpartition(".")[0] if isinstance(name, str) else name
        found.setdefault(layer, []).append(position)
    return found


def grouped(
    names: Sequence[Name], groups: Mapping[str, Iterable[Name]]
) -> Iterator[tuple[str, list[int]]]:
    """Every group and the positions of its parameters.

    Raises:
        ValueError: a name that no measured parameter has, or a group without parameters.
    """
    positions = {name: position for position, name in enumerate(names)}
    for group, members in groups.items():
        own = list(members)
        if isinstance(members, str) or not own:
            raise ValueError(
                f"group {group!r} needs a list with at least one name of a parameter, received "
                f"{members!r}"
            )
        for name in own:
            if name not in positions:
                raise ValueError(
                    f"group {group!r} names {name!r}, which is no measured parameter: those are "
                    f"{', '.join(map(str, names))}"
                )
        yield group, sorted({positions[name] for name in own})
