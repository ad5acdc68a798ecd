"""The metric of the trace on sharded parameters: D of the whole ones, and ‖θ/D‖."""

from collections.abc import Sequence

import torch
from torch import Tensor

from f3eo.fisher import ByRow, Metric
from f3eo.fisher.metric import Diagonal, Diagonals
from f3eo.integrations.fsdp.units import Units
from f3eo.tensors import over_shards, own_part, squared_norm


@torch.no_grad()
def diagonals(
    metric: Metric, parameters: Sequence[Tensor], units: Units
) -> tuple[Diagonals, Tensor]:
    """D by the ids of the whole parameters, and ‖θ/D‖ over all of them.

    The rows of a parameter are on one process each, so that `ByRow` gathers one number a row. Any
    other metric sees the whole parameter, one at a time.

    Args:
        metric: gives D.
        parameters: the structured ones, DTensors.
        units: of the sharded model.
    """
    found: dict[int, Diagonal] = {}
    plain: list[Tensor] = []
    squares: list[Tensor] = []
    for p in parameters:
        by_row = isinstance(metric, ByRow)
        own = p.detach()
        value: Tensor = own_part(own) if by_row else own.full_tensor()  # pyright: ignore
        diagonal = metric.of([value]).get(id(value))
        if diagonal is None:
            plain.append(own)
            continue
        square = diagonal.squared_length(value)
        squares.append(square if by_row else square / _sharers(p))
        found[id(units.whole(p))] = _gathered(diagonal, p) if by_row else diagonal
    total = squared_norm(plain).double()
    if squares:
        total = total + over_shards([torch.stack(squares).sum().double()], parameters[0])[0]
    return found, total.sqrt()


def _gathered(diagonal: Diagonal, parameter: Tensor) -> Diagonal:
    """The diagonal of the whole parameter from that of the rows of this process."""
    whole = [_whole(factor, parameter) for factor in (diagonal.rows, diagonal.full)]
    return Diagonal(rows=whole[0], full=whole[1])


def _whole(factor: Tensor | None, parameter: Tensor) -> Tensor | None:
    from torch.distributed.tensor import DTensor

    if factor is None:
        return None
    shape = torch.Size([parameter.shape[0], *factor.shape[1:]])
    stride = torch.empty(shape, device="meta").stride()
    mesh, placements = parameter.device_mesh, parameter.placements  # pyright: ignore
    return DTensor.from_local(
        factor, mesh, placements, run_check=False, shape=shape, stride=stride
    ).full_tensor()


def _sharers(parameter: Tensor) -> int:
    """The number of processes over which a copy of the parameter is spread."""
    mesh, count = parameter.device_mesh, 1  # pyright: ignore[reportAttributeAccessIssue]
    for dimension, placement in enumerate(parameter.placements):  # pyright: ignore
        count *= mesh.size(dimension) if placement.is_shard() else 1
    return count
