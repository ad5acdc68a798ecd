"""Norms of single samples, gathered from all processes for those who observe steps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f3eo.closure.output import Shares
from f3eo.fisher.sample_norms import Block, SampleNorms


def packed(norms: SampleNorms | None, parameters: Sequence[Tensor]) -> list[dict[str, Any]]:
    """The blocks as another process can read them: parameters by their position.

    Args:
        norms: of this process; none where it has no samples.
        parameters: in an order that is the same on every process.
    """
    positions = {id(p): i for i, p in enumerate(parameters)}
    return [
        {
            "weight": float(block.weight),
            "count": block.shares.count,
            "weights": _sent(block.shares.weights),
            "by_leaf": {positions[key]: _sent(own) for key, own in block.by_leaf.items()},
            "euclidean": _sent(block.euclidean),
        }
        for block in (() if norms is None else norms.blocks)
    ]


def joined(
    rows: Sequence[Sequence[dict[str, Any]]], parameters: Sequence[Tensor], device: torch.device
) -> SampleNorms:
    """The norms of all processes, in the order of their ranks.

    Args:
        rows: of every process, as it was `packed`; one block at least.
        parameters: as there.
        device: of the result.
    """

    def here(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor.to(device)

    return SampleNorms(
        tuple(
            Block(
                weight=block["weight"],
                shares=Shares(block["count"], here(block["weights"])),
                by_leaf={id(parameters[i]): here(own) for i, own in block["by_leaf"].items()},
                euclidean=here(block["euclidean"]),
            )
            for row in rows
            for block in row
        )
    )


def _sent(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().cpu()
