"""What every process runs: the cases that one process repeats, and what only several do."""

import os

import torch
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.optim import SGD, AdamW

from f3eo import F3EO
from f3eo.continual import Elastic, PathIntegral
from f3eo.integrations.fsdp import Sharded
from integrations.fsdp_cases import CASES, WHOLE, central, own, train
from integrations.fsdp_models import batches, losses, model_of, shard, weights


def mesh_of(count):
    return init_device_mesh("cpu", (count,))


def made(name, count, base=SGD, **options):
    model = shard(model_of(name), mesh_of(count))
    options = {"lr": 0.05, "estimator": Sharded(), **WHOLE, **options}
    return model, F3EO(model, base, **options)


def part(batch, rank, count):
    return own(batch, CASES["mlp"], rank, count)


def copies(rank, count):
    """Two copies of a model, each sharded over half of the processes."""
    names = ("copies", "shards")
    mesh = init_device_mesh("cpu", (2, count // 2), mesh_dim_names=names)
    return train("mlp adamw", rank, count, mesh)


def defaults(rank, count):
    """A quarter of the batch, every fifth step, and dropout that differs on every process."""
    torch.manual_seed(rank)
    model = model_of("transformer")
    model.blocks[0] = nn.Sequential(model.blocks[0], nn.Dropout(0.2))
    torch.manual_seed(rank)
    model = shard(model, mesh_of(count))
    optimizer = F3EO(model, AdamW, lr=0.01, estimator=Sharded())
    for batch in batches("transformer", 11, samples=32):
        loss = optimizer.step(losses(model), *part(batch, rank, count))
    numbers = [float(loss), float(optimizer.trace), float(optimizer.structure_error)]
    return {"weights": weights(model), "numbers": numbers, "steps": optimizer.steps}


def not_finite(rank, count):
    """A loss that is not finite on one process."""
    model, optimizer = made("mlp", count, AdamW)
    data = batches("mlp", 3)
    optimizer.step(losses(model), *part(data[0], rank, count))
    before = weights(model)
    x, y = part(data[1], rank, count)
    if rank == 1:
        x = torch.full_like(x, torch.nan)
    optimizer.step(losses(model), x, y)
    same = torch.equal(weights(model), before)
    optimizer.step(losses(model), *part(data[2], rank, count))
    return {
        "same": same,
        "skipped": optimizer.skipped,
        "moved": not torch.equal(weights(model), before),
    }


def left_alone(rank, count):
    """.grad of the user is not touched by a step that is skipped, buffers and modes neither."""
    model, optimizer = made("mlp", count)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    x, y = part(batches("mlp")[0], rank, count)
    optimizer.step(losses(model), x * torch.nan, y)
    kept = all(bool((p.grad.to_local() == 1).all()) for p in model.parameters())
    states = [m._get_fsdp_state() for m in model.modules() if isinstance(m, FSDPModule)]
    parts = [part for s in states for part in (s, s._fsdp_param_group) if part is not None]
    names = {"pre_forward", "post_forward", "_lazy_init"}
    patched = [name for part in parts for name in vars(part) if name in names]
    return {"kept": kept, "patched": patched}


def empty(rank, count):
    """A batch without samples on the first process."""
    model, optimizer = made("mlp", count)
    x, y = part(batches("mlp")[0], rank, count)
    if rank == 0:
        x, y = x[:0], y[:0]
    try:
        optimizer.step(losses(model), x, y)
    except (ValueError, RuntimeError) as error:
        return [str(error)]
    return ["nothing was raised"]


def refused(make, match):
    """Whether a function raises an error with these words."""
    try:
        make()
    except (ValueError, NotImplementedError, RuntimeError, TypeError) as error:
        return match in str(error) or str(error)
    return "nothing was raised"


def refusals(rank, count):
    """Everything that is refused says so on every process, before a closure is called."""
    mesh, batch = mesh_of(count), part(batches("mlp")[0], rank, count)

    def never(*_):
        raise AssertionError("called")

    def step(model, **options):
        F3EO(model, SGD, lr=0.1, **options).step(never, *batch)

    def late():
        model = model_of("mlp")
        optimizer = F3EO(model, SGD, lr=0.1, estimator=Sharded())
        shard(model, mesh)
        optimizer.step(never, *batch)

    def tensor_parallel():
        model = nn.Sequential(nn.Linear(10, 4)).double()
        parallelize_module(model, mesh, {"0": ColwiseParallel()})
        step(model, estimator=Sharded())

    def both():
        whole = init_device_mesh("cpu", (1, count), mesh_dim_names=("data", "model"))
        model = nn.Sequential(nn.Linear(10, 4)).double()
        parallelize_module(model, whole["model"], {"0": ColwiseParallel()})
        step(shard(model, whole["data"]), estimator=Sharded())

    def unsynchronised():
        model = shard(model_of("mlp"), mesh)
        model.set_requires_gradient_sync(False)
        step(model, estimator=Sharded())

    def without_batch():
        model = shard(model_of("mlp"), mesh)
        F3EO(model, SGD, lr=0.1, estimator=Sharded()).step(never)

    def past():
        F3EO(sharded(), SGD, lr=0.1, estimator=Sharded(), past=Elastic(PathIntegral(), 1.0))

    def sharded():
        return shard(model_of("mlp"), mesh)

    return {
        "no estimator": refused(lambda: step(sharded()), "use F3EO with estimator=Sharded()"),
        "not sharded": refused(lambda: step(model_of("mlp"), estimator=Sharded()), "fully_shard"),
        "parameters": refused(
            lambda: step(sharded().parameters(), estimator=Sharded()), "needs the module"
        ),
        "late": refused(late, "sharded after the optimizer was built"),
        "tensor parallel": refused(tensor_parallel, "fully_shard"),
        "both": refused(both, "tensor parallel"),
        "no synchronisation": refused(unsynchronised, "optimizer.accumulate"),
        "past": refused(past, "leave past out"),
        "no batch": refused(without_batch, "step(closure, *batch)"),
    }


def saved(rank, count):
    """Three steps, a checkpoint on disk, three more."""
    model, optimizer = made("transformer", count, AdamW, lr=0.005)
    data = batches("transformer", 6)
    for batch in data[:3]:
        optimizer.step(losses(model), *part(batch, rank, count))
    parts = get_state_dict(model, optimizer)
    dcp.save({"m": parts[0], "o": parts[1]}, checkpoint_id=os.environ["F3EO_CHECKPOINT"])
    for batch in data[3:]:
        optimizer.step(losses(model), *part(batch, rank, count))
    return {"weights": weights(model), "steps": optimizer.steps, "trace": float(optimizer.trace)}


def resumed(rank, count):
    """The checkpoint, and the three steps after it."""
    model, optimizer = made("transformer", count, AdamW, lr=0.005)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    parts = get_state_dict(model, optimizer)
    loaded = {"m": parts[0], "o": parts[1]}
    dcp.load(loaded, checkpoint_id=os.environ["F3EO_CHECKPOINT"])
    set_state_dict(model, optimizer, model_state_dict=loaded["m"], optim_state_dict=loaded["o"])
    begun = optimizer.steps
    for batch in batches("transformer", 6)[3:]:
        optimizer.step(losses(model), *part(batch, rank, count))
    found = {"weights": weights(model), "steps": optimizer.steps, "begun": begun}
    return {**found, "trace": float(optimizer.trace)}


def autocast(rank, count):
    """Central differences in bfloat16 on shards of float32, beside one process; forward ones."""

    def closure(model):
        def run(x, y):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(x)
            return F.cross_entropy(logits.float(), y, reduction="none")

        return run

    ways, data = [], batches("mlp", 3)
    for whole in (True, False):
        model = model_of("mlp").float()
        start = weights(model)
        estimator = central()
        if not whole:
            model, estimator = shard(model, mesh_of(count)), Sharded(estimator)
        alone = {"processes": dist.new_group([rank], use_local_synchronization=True)}
        options = {**WHOLE, **(alone if whole else {})}
        optimizer = F3EO(model, SGD, lr=0.05, estimator=estimator, **options)
        for x, y in data:
            batch = (x.float(), y) if whole else part((x.float(), y), rank, count)
            optimizer.step(closure(model), *batch)
        ways.append(weights(model) - start)
    model, optimizer = shard(model_of("mlp").float(), mesh_of(count)), None
    optimizer = F3EO(model, SGD, lr=0.05, estimator=Sharded(), **WHOLE)
    x, y = part(data[0], rank, count)
    said = refused(lambda: optimizer.step(closure(model), x.float(), y), "central=True")
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    model = fully_shard(model_of("mlp").float(), mesh=mesh_of(count), mp_policy=policy)
    optimizer = F3EO(model, SGD, lr=0.05, estimator=Sharded(central()), **WHOLE)
    cast = refused(lambda: optimizer.step(losses(model), x.float(), y), "under torch.autocast")
    error = float((ways[0] - ways[1]).norm() / ways[0].norm())
    return {"error": error, "forward": said, "cast": cast}


class Blocks(nn.Module):
    """A model as the page has it."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(5, 8), nn.Linear(8, 3)])

    def forward(self, x):
        return self.blocks[1](self.blocks[0](x).tanh())


def page(rank, count):
    """The loop of the page."""
    from docs.pages import changes

    code, changed = changes("processes.md")[1]
    torch.manual_seed(0)
    space = {"AdamW": AdamW, "F3EO": F3EO, "Sharded": Sharded, "net": Blocks()}
    space |= {"cross_entropy": F.cross_entropy, "fully_shard": fully_shard}
    before = weights(space["net"])
    generator = torch.Generator().manual_seed(rank)
    x, y = torch.randn(6, 5, generator=generator), torch.randint(3, (6,), generator=generator)
    space["loader"] = [(x, y)] * 3
    exec(code, space)
    return {"changed": changed, "moved": float((weights(space["model"]) - before).norm())}


ALONE = {
    f.__name__: f
    for f in (
        copies,
        defaults,
        not_finite,
        left_alone,
        empty,
        refusals,
        autocast,
        page,
        saved,
        resumed,
    )
}
"""What only several processes run."""


def work(name, rank, count):
    dist.barrier()
    if name in ALONE:
        return ALONE[name](rank, count)
    return train(name, rank, count, mesh_of(count))
