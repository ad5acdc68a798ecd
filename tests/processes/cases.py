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
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from cases import WHOLE
from f3eo import F3EO, Fitted, MiniBatch, PerSample
from f3eo.continual import Elastic, Exact, FromSteps, Rehearsal, Reservoir
from processes.runs import RUNS, data, flat, net, plain, train
from processes.spoilt import SPOILT, not_finite, stepping
from processes.steps import exact, own, raised
from processes.wrapped import joining, moved, own_reducer

Case = Callable[[int, int], Any]


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


def other_states(rank: int, world: int) -> str:
    """A state is loaded, and other parameters with it."""
    model = net()
    optimizer = exact(model)
    optimizer.step(plain(model), *own(data()[0], rank, world))
    optimizer.load_state_dict(optimizer.state_dict())
    with torch.no_grad():
        model.first.weight[0, 0] += rank
    return raised(lambda: optimizer.step(plain(model), *own(data()[0], rank, world)))


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


def single(rank: int, world: int) -> dict[str, Any]:
    """In float32, where one process has no samples at first and cannot tell the type of a loss."""
    model, losses = net().float(), []
    optimizer = F3EO(model, SGD, lr=0.1, strength=Fitted(0.5), **WHOLE)
    for k, batch in enumerate(data()):
        x, y, w = own(batch, rank, world)
        x, y, w = (t[: 0 if rank == 1 and k < 3 else None] for t in (x.float(), y, w))
        losses.append(optimizer.step(plain(model), x, y, w))
    return {"weights": flat(model.parameters()), "losses": losses}


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
    optimizer.consolidate()  # memories may differ
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


def numbers(record: Any) -> list[float]:
    """What a record tells of a step, norms of samples included."""
    norms = record.norms
    return [
        float(record.loss),
        record.squared,
        float(record.trace),
        record.strength,
        float(norms.euclidean_trace()),
        norms.squared_shares(),
        *[float(own) for own in norms.trace_by_leaf().values()],
        *norms.contributions().tolist(),
    ]


def observed(rank: int, world: int) -> list[Any]:
    """What observers are told; one process alone has one at the first steps."""
    model, told = net(), []
    optimizer = exact(model)
    for k, batch in enumerate(data()[:4]):
        if rank == 0 or k == 2:
            optimizer.observe(lambda record: told.append(numbers(record)))
        batch = own(batch, rank, world)
        last = k == 3 and rank == 1  # without samples
        optimizer.step(plain(model), *(t[:0] if last else t for t in batch))
        optimizer._observers.clear()
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


def float16(rank: int, world: int) -> dict[str, Any]:
    """The scale overflows on one process alone, and another one has no samples at first."""
    model, scales = net().float(), []
    options = {"loss_scale": 2.0**16, "on_nonfinite": "raise", "strength": Fitted(0.5)}
    optimizer = F3EO(model, SGD, lr=0.1, **WHOLE | options)

    def losses(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            z = model(x)
        return (30.0 if rank == 0 else 1e-3) * F.cross_entropy(z.float(), y, reduction="none")

    for k, (x, y, _) in enumerate(2 * data()):
        x, y = own((x.float(), y), rank, world)
        first = rank == world - 1 and k < 2
        optimizer.step(losses, *(t[:0] if first else t for t in (x, y)))
        scales.append(optimizer.loss_scale.scale)
    return {"weights": flat(model.parameters()), "skipped": optimizer.skipped, "scales": scales}


def copies(rank: int, world: int) -> Any:
    """A copy steps with the same processes; a pickled group is refused."""
    import copy
    import pickle

    model = net()
    optimizer = exact(model, processes=dist.group.WORLD)
    model, optimizer = copy.deepcopy((model, optimizer))
    optimizer.step(plain(model), *own(data()[0], rank, world))
    return flat(model.parameters()), raised(lambda: pickle.dumps(optimizer))


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


def resumed(rank: int, world: int) -> dict[str, Any]:
    """Three steps, the state of each process, and three more in new objects; and without a stop."""
    found, saved = [], None
    for stop in (False, True):
        model = net()
        made = dict(generator=torch.Generator().manual_seed(rank), momentum=0.9, fraction=0.5)
        optimizer = exact(model, **made)
        for k, batch in enumerate(data()):
            if stop and k == 3:
                saved = model.state_dict(), optimizer.state_dict()
                model = net()
                optimizer = exact(model, **made | {"generator": torch.Generator()})
                model.load_state_dict(saved[0])
                optimizer.load_state_dict(saved[1])
            optimizer.step(plain(model), *own(batch, rank, world))
        found.append(flat(model.parameters()))
    return {"whole": found[0], "stopped": found[1]}


def page(rank: int, world: int) -> dict[str, Any]:
    """The loop of the page."""
    from docs.pages import changes

    code, changed = changes("processes.md")[0]
    torch.manual_seed(rank)
    space = {
        "DistributedDataParallel": DistributedDataParallel,
        "F3EO": F3EO,
        "SGD": SGD,
        "cross_entropy": F.cross_entropy,
        "net": nn.Linear(5, 3),
        "loader": [(torch.randn(4, 5), torch.randint(3, (4,))) for _ in range(3)],
    }
    exec(code, space)
    return {"weights": flat(space["model"].parameters()), "changed": changed}


def cases(world: int) -> dict[str, Case]:
    """The cases of a group of this size, in order; the last one ends a process."""
    found: dict[str, Case] = {name: partial(train, run) for name, run in RUNS.items()}
    found |= {f"spoilt {name}": partial(stepping, spoil=how) for name, how in SPOILT.items()}
    found["raising"] = partial(stepping, spoil=not_finite, on_nonfinite="raise")
    alone = (
        scaled, other_starts, other_states, mini_batch, group_of_one, no_member, rehearsal, elastic,
        measured_apart, observed, counters, single, float16, copies, moved, own_reducer, joining,
        silent, resumed, page,
    )  # fmt: skip
    found |= {case.__name__: case for case in alone}
    if world == 4:
        found["groups_of_half"] = groups_of_half
    return found | {"dying": dying}


def work(name: str, rank: int, world: int) -> Any:
    """One of them, as `ranks.run` calls it."""
    return cases(world)[name](rank, world)
