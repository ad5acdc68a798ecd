"""What the wrapper and the step send."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from f3eo import F3EO
from processes.runs import data, flat, net, plain
from processes.steps import exact, own, raised


class Counting:
    """Counts the bytes that DistributedDataParallel sums."""

    def __init__(self) -> None:
        self.bytes = 0

    def hook(self, state: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        self.bytes += bucket.buffer().numel() * bucket.buffer().element_size()
        return allreduce_hook(state, bucket)


def moved(rank: int, world: int) -> dict[str, Any]:
    """Bytes of a step of F3EO, measured and between, and of plain DistributedDataParallel."""

    def large() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 64))

    generator = torch.Generator().manual_seed(rank)
    x, y = torch.randn(8, 64, generator=generator), torch.randint(64, (8,), generator=generator)
    counting = Counting()
    wrapped = DistributedDataParallel(large())
    wrapped.register_comm_hook(None, counting.hook)
    F.cross_entropy(wrapped(x), y).backward()
    model = large()
    optimizer, found = F3EO(model, SGD, lr=0.1), []
    for _ in range(2):
        optimizer.step(lambda x, y: F.cross_entropy(model(x), y, reduction="none"), x, y)
        found.append(optimizer._reduction.bytes)  # pyright: ignore
    return {"plain": counting.bytes, "steps": found}


def own_reducer(rank: int, world: int) -> dict[str, Any]:
    """The wrapper's own sums do not run in a step, and serve afterwards as before."""
    counting = Counting()
    wrapped = DistributedDataParallel(net(), find_unused_parameters=True)
    wrapped.register_comm_hook(None, counting.hook)
    optimizer = exact(wrapped)
    x, y, w = own(data()[0], rank, world)
    optimizer.step(plain(wrapped), x, y, w)
    inside = counting.bytes
    optimizer.zero_grad()
    plain(wrapped)(x, y, w).mean().backward()
    grads = [p.grad for p in wrapped.parameters() if p.grad is not None]
    return {"inside": inside, "after": counting.bytes, "gradient": flat(grads)}


def joining(rank: int, world: int) -> str:
    wrapped = DistributedDataParallel(net())
    optimizer = exact(wrapped)
    with wrapped.join():
        said = raised(lambda: optimizer.step(plain(wrapped), *own(data()[0], rank, world)))
        wrapped._join_config = wrapped._join_config._replace(enable=False)
    return said
