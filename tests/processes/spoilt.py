"""Steps that are spoilt on one process, and what comes of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from f3eo import F3EO
from processes.runs import data, flat, net, plain
from processes.steps import exact, own, raised


def stepping(rank: int, world: int, spoil: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """A step, one that is spoilt on one process, and one after it."""
    model = net()
    optimizer = exact(model, **options)
    closure, batches = plain(model), data()
    optimizer.step(closure, *own(batches[0], rank, world))
    before = flat(model.parameters())
    said = raised(lambda: spoil(optimizer, closure, own(batches[1], rank, world), rank))
    untouched = torch.equal(before, flat(model.parameters()))
    after = raised(lambda: optimizer.step(closure, *own(batches[2], rank, world)))
    return {
        "said": said,
        "untouched": untouched,
        "after": after,
        "weights": flat(model.parameters()),
        "skipped": optimizer.skipped,
    }


def not_finite(optimizer: F3EO, closure: Any, batch: Any, rank: int) -> None:
    x, *rest = batch
    optimizer.step(closure, x * torch.nan if rank == 1 else x, *rest)


def failing(optimizer: F3EO, closure: Any, batch: Any, rank: int) -> None:
    def fails(*batch: Any) -> Tensor:
        if rank == 1:
            raise KeyError("the data of this process")
        return closure(*batch)

    optimizer.step(fails, *batch)


def failing_to_accumulate(optimizer: F3EO, closure: Any, batch: Any, rank: int) -> None:
    def fails(*batch: Any) -> Tensor:
        raise KeyError("the data of this process")

    for k in range(2):
        optimizer.accumulate(fails if rank == 1 and k == 1 else closure, *batch)
    optimizer.step()


def nothing_gathered(optimizer: F3EO, closure: Any, batch: Any, rank: int) -> None:
    if rank != 1:
        optimizer.accumulate(closure, *batch)
    optimizer.step()


def clipped(optimizer: F3EO, closure: Any, batch: Any, rank: int) -> None:
    optimizer.accumulate(closure, *batch)
    grads = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(grads, 0.1)
    optimizer.step()


def without_samples(optimizer: F3EO, closure: Any, batch: Any, rank: int) -> None:
    optimizer.step(closure, *(t[:0] for t in batch))


def out_of_step(optimizer: F3EO, closure: Any, batch: Any, rank: int) -> None:
    optimizer.steps += rank
    try:
        optimizer.step(closure, *batch)
    finally:
        optimizer.steps -= rank


def frozen_on_one(optimizer: F3EO, closure: Any, batch: Any, rank: int) -> None:
    bias = optimizer.param_groups[0]["params"][1]
    bias.requires_grad_(rank != 1)
    try:
        optimizer.step(closure, *batch)
    finally:
        bias.requires_grad_(True)


SPOILT: dict[str, Callable[..., Any]] = {
    "not finite": not_finite,
    "failing": failing,
    "failing to accumulate": failing_to_accumulate,
    "nothing gathered": nothing_gathered,
    "clipped": clipped,
    "without samples": without_samples,
    "out of step": out_of_step,
    "frozen on one": frozen_on_one,
}
