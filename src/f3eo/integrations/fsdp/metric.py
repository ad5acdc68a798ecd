"""The metric of the trace on sharded parameters: D of the whole ones, and ‖θ/D‖."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from f3eo.fisher import ByRow, Metric
from f3eo.fisher.metric import Diagonal, Diagonals
from f3eo.integrations.fsdp.units import Units
from f3eo.tensors import over_shards, own_part, squared_norm


@torch.no_grad()
def diagonals(
    metric: Metric, parameters: Sequence[Tensor], units: Units
) -> tuple[Diagonals, Tensor]:
    """D by the ids of the whole parameters, and ‖θ/D‖ over all of them.

    The rows of a parameter are on one process each, so that `ByRow` gathers one number a row, of
    all parameters at once. Any other metric sees the whole parameter, one at a time.

    Args:
        metric: gives D.
        parameters: the structured ones, DTensors.
        units: of the sharded model.
    """
    found: dict[int, Diagonal] = {}
    plain: list[Tensor] = []
    squares: list[Tensor] = []
    by_row: list[tuple[Tensor, Diagonal]] = []
    for p in parameters:
        own = p.detach()
        local = isinstance(metric, ByRow)
        value: Tensor = own_part(own) if local else own.full_tensor()  # pyright: ignore
        diagonal = metric.of([value]).get(id(value))
        if diagonal is None:
            plain.append(own)
            continue
        square = diagonal.squared_length(value)
        squares.append(square if local else square / _sharers(p))
        if local:
            by_row.append((p, diagonal))
        else:
            found[id(units.whole(p))] = diagonal
    wholes = _gathered(by_row)
    found |= {id(units.whole(p)): d for (p, _), d in zip(by_row, wholes, strict=True)}
    total = squared_norm(plain).double()
    if squares:
        total = total + over_shards([torch.stack(squares).sum().double()], parameters[0])[0]
    return found, total.sqrt()


def _gathered(own: Sequence[tuple[Tensor, Diagonal]]) -> list[Diagonal]:
    """Diagonals of the whole parameters from those of the rows of this process, in one exchange.

    A process has ⌈n/N⌉ rows of n, the last ones fewer; they are filled up, in one flat tensor.
    """
    if not own:
        return []
    mesh, placements = own[0][0].device_mesh, own[0][0].placements  # pyright: ignore
    dimension = next(d for d, placement in enumerate(placements) if placement.is_shard())
    group, count = mesh.get_group(dimension), mesh.size(dimension)
    factors = [d.rows if d.rows is not None else d.full for _, d in own]
    parts: list[Tensor] = []
    for (p, _), factor in zip(own, factors, strict=True):
        assert factor is not None  # `ByRow` has one of the two
        missing = -(-p.shape[0] // count) - len(factor)
        parts.append(
            pad(factor.reshape(len(factor), prod(factor.shape[1:])), (0, 0, 0, missing)).flatten()
        )
    flat = torch.cat([part.to(parts[0]) for part in parts])
    rows = [torch.empty_like(flat) for _ in range(count)]
    torch.distributed.all_gather(rows, flat, group=group)
    columns = torch.stack(rows).split([part.numel() for part in parts], dim=1)
    wholes = []
    for (p, d), factor, column in zip(own, factors, columns, strict=True):
        assert factor is not None
        shape = p.shape[0], *factor.shape[1:]
        whole = column.flatten()[: prod(shape)].view(shape).to(factor)
        wholes.append(Diagonal(rows=whole) if d.rows is not None else Diagonal(full=whole))
    return wholes


def _sharers(parameter: Tensor) -> int:
    """The number of processes over which a copy of the parameter is spread."""
    mesh, count = parameter.device_mesh, 1  # pyright: ignore[reportAttributeAccessIssue]
    for dimension, placement in enumerate(parameter.placements):  # pyright: ignore
        count *= mesh.size(dimension) if placement.is_shard() else 1
    return count
