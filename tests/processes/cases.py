"""What every process of a group does, one case after another."""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from cases import WHOLE
from f3eo import F3EO, DoubleBackward, MiniBatch, PerSample
from f3eo.continual import Elastic, Exact, FromSteps, Rehearsal, Reservoir
from processes.runs import RUNS, data, flat, net, plain, train

Case = Callable[[int, int], Any]


def exact(model: Any, **options: Any) -> F3EO:
    return F3EO(model, SGD, lr=0.05, **WHOLE | {"estimator": PerSample(DoubleBackward())} | options)


def own(batch: Any, rank: int, world: int) -> tuple[Tensor, ...]:
    return tuple(t.chunk(world)[rank] for t in batch)


def raised(step: Callable[[], Any]) -> str:
    """The error of a step in words, with its type."""
    try:
        step()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def stepping(rank: int, world: int, spoil: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """A step, one that is spoilt on one process, and one after it."""
    model = net()
    optimizer = exact(model, **options)
    closure, batches = plain(model), data()
    optimizer.step(closure, *own(batches[0], rank, world))
    before = flat(model.parameters())
    said = raised(lambda: spoil(optimizer, closure, own(batches[1], rank, world), rank))
    untouched = torch.equal(before, flat(model.parameters()))
    optimizer.zero_grad()
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


def scaled(rank: int, world: int) -> Tensor:
    """A common factor on what was accumulated."""
    model = net()
    optimizer = exact(model)
    for batch in data()[:2]:
        optimizer.accumulate(plain(model), *own(batch, rank, world))
        for p in model.parameters():
            if p.grad is not None:
                p.grad.mul_(0.5)
        optimizer.step()
    return flat(model.parameters())


def other_starts(rank: int, world: int) -> str:
    model = net()
    with torch.no_grad():
        model.first.weight[0, 0] += rank
    return raised(lambda: exact(model).step(plain(model), *own(data()[0], rank, world)))


def mini_batch(rank: int, world: int) -> str:
    model = net()
    optimizer = exact(model, estimator=MiniBatch())
    return raised(lambda: optimizer.step(plain(model), *own(data()[0], rank, world)))


def group_of_one(rank: int, world: int) -> Tensor:
    """A group of this process alone: the others take no part."""
    groups = [dist.new_group([r]) for r in range(world)]
    model = net()
    exact(model, processes=groups[rank]).step(plain(model), *own(data()[0], rank, world))
    return flat(model.parameters())


def groups_of_half(rank: int, world: int) -> Tensor:
    """Two groups, each of half of the processes."""
    half = world // 2
    groups = [dist.new_group(range(k * half, (k + 1) * half)) for k in range(2)]
    model = net()
    optimizer = exact(model, processes=groups[rank // half])
    batch = own(data()[rank // half], rank % half, half)
    optimizer.step(plain(model), *batch)
    return flat(model.parameters())


def no_member(rank: int, world: int) -> str:
    group = dist.new_group([0])
    return raised(lambda: exact(net(), processes=group))


def rehearsal(rank: int, world: int) -> dict[str, Any]:
    """Every process keeps samples of its own; one has none at first."""
    model = net()
    past = Rehearsal(Reservoir(20, torch.Generator().manual_seed(rank)), 3)
    optimizer = exact(model, past=past)
    drawn = []
    for k, batch in enumerate(data()):
        batch = own(batch, rank, world)
        batch = tuple(t[:0] for t in batch) if k < 2 and rank == world - 1 else batch
        optimizer.step(plain(model), *batch)
        drawn.append(past.last_loss)
    return {"weights": flat(model.parameters()), "drawn": drawn}


def elastic(rank: int, world: int) -> Tensor:
    """The importance of steps is that of all processes."""
    model = net()
    optimizer = exact(model, past=Elastic(FromSteps(), 50.0), estimator=PerSample())
    for k, batch in enumerate(data()):
        if k == 3:
            optimizer.consolidate()
        optimizer.step(plain(model), *own(batch, rank, world))
    return flat(model.parameters())


def measured_apart(rank: int, world: int) -> str:
    """An importance that every process measures on data of its own."""
    model = net()
    optimizer = exact(model, past=Elastic(Exact(), 50.0))
    optimizer.step(plain(model), *own(data()[0], rank, world))
    same = raised(lambda: optimizer.consolidate(plain(model), [data()[0]]))
    return same + raised(lambda: optimizer.consolidate(plain(model), [own(data()[0], rank, world)]))


def observed(rank: int, world: int) -> list[Any]:
    """What observers are told."""
    model, told = net(), []
    optimizer = exact(model)
    optimizer.observe(
        lambda r: told.append((float(r.loss), r.squared, float(r.trace), r.strength, r.norms))
    )
    for batch in data()[:2]:
        optimizer.step(plain(model), *own(batch, rank, world))
    return told


def counters(rank: int, world: int) -> dict[str, Any]:
    """Losses too small for differences on one process alone."""
    model = net().float()
    optimizer = F3EO(model, SGD, lr=1e-3, **WHOLE)
    for x, y, _ in data()[:2]:
        x, y = own((x.float(), y), rank, world)
        factor = 1e-9 if rank == 1 else 1.0
        optimizer.step(lambda x, y, c=factor: c * (model(x) - F.one_hot(y, 3)).square(), x, y)
    return dict(optimizer.estimator.counters())


def copies(rank: int, world: int) -> Any:
    """A copy steps with the same processes; a pickled group is refused."""
    import copy
    import pickle

    model = net()
    optimizer = exact(model, processes=dist.group.WORLD)
    model, optimizer = copy.deepcopy((model, optimizer))
    optimizer.step(plain(model), *own(data()[0], rank, world))
    return flat(model.parameters()), raised(lambda: pickle.dumps(optimizer))


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


def dying(rank: int, world: int) -> dict[str, Any]:
    """The last process dies in a step; the others wait for it no longer than 5 s."""
    group = dist.new_group(timeout=timedelta(seconds=5))
    model = net()
    optimizer = exact(model, processes=group)
    closure, batches = plain(model), data()
    optimizer.step(closure, *own(batches[0], rank, world))
    before = flat(model.parameters())

    def dies(*batch: Any) -> Tensor:
        if rank == world - 1:
            os._exit(1)
        return closure(*batch)

    said = raised(lambda: optimizer.step(dies, *own(batches[1], rank, world)))
    return {"said": said, "untouched": torch.equal(before, flat(model.parameters()))}


def silent(rank: int, world: int) -> dict[str, Any]:
    """The last process makes no second step."""
    group = dist.new_group(timeout=timedelta(seconds=2))
    model = net()
    optimizer = exact(model, processes=group)
    optimizer.step(plain(model), *own(data()[0], rank, world))
    before, said = flat(model.parameters()), "nothing"
    if rank < world - 1:
        said = raised(lambda: optimizer.step(plain(model), *own(data()[1], rank, world)))
    dist.barrier()
    return {"said": said, "untouched": torch.equal(before, flat(model.parameters()))}


SPOILT: dict[str, Callable[..., Any]] = {
    "not finite": not_finite,
    "failing": failing,
    "nothing gathered": nothing_gathered,
    "clipped": clipped,
    "without samples": without_samples,
    "out of step": out_of_step,
    "frozen on one": frozen_on_one,
}


def cases(world: int) -> dict[str, Case]:
    """The cases of a group of this size, in order; the last one ends a process."""
    found: dict[str, Case] = {name: partial(train, run) for name, run in RUNS.items()}
    found |= {f"spoilt {name}": partial(stepping, spoil=how) for name, how in SPOILT.items()}
    found["raising"] = partial(stepping, spoil=not_finite, on_nonfinite="raise")
    alone = (
        scaled, other_starts, mini_batch, group_of_one, no_member, rehearsal, elastic,
        measured_apart, observed, counters, copies, moved, own_reducer, joining, silent,
    )  # fmt: skip
    found |= {case.__name__: case for case in alone}
    if world == 4:
        found["groups_of_half"] = groups_of_half
    return found | {"dying": dying}
