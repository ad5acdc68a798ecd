"""Put the tables of docs/scale.md into the page: what a step sends and costs on many processes.

    python docs/scale.py measure    # 2, 4 and 8 gloo processes; ten minutes; results/scale/
    python docs/scale.py            # writes the tables between the marks of the page

A step is made of pieces: its arithmetic on one process, and its exchanges. `measure` times the
pieces and the step, each by itself and in turn, so that the sum can be compared with the whole.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode

from f3eo import F3EO
from f3eo.bench.models.gpt import GPT, VOCABULARY
from f3eo.fisher.ghost.gradients.terms import MEMORY_TRAFFIC
from f3eo.integrations.fsdp import Sharded

PAGE = Path(__file__).with_suffix(".md")
RESULTS = Path(__file__).parents[1] / "results" / "scale" / "steps.json"
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
POSITIONS, BATCH, ROUNDS = 64, 8, 9
KINDS = ("plain", "between", "measured")
"""A gradient of the loss; a step of F3EO that measures no h; one that does, on a quarter."""

EXCHANGES = {
    "allreduce_": ("all-reduce", 0),
    "_allgather_base_": ("all-gather", 0),
    "_reduce_scatter_base_": ("reduce-scatter", 1),
}
"""Names in torch, ours, and which argument is as large as the whole."""


class Bytes(TorchDispatchMode):
    """Counts exchanges, and the bytes of the whole tensors that they are about."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.namespace == "c10d"
        if func.namespace == "c10d" and (known := EXCHANGES.get(func._schema.name[6:])):
            name, place = known
            tensors = [args[place]] if isinstance(args[place], Tensor) else args[place]
            own = sum(t.numel() * t.element_size() for t in tensors)
            self.found[name] = self.found.get(name, 0) + own
        return func(*args, **(kwargs or {}))


def network() -> nn.Module:
    torch.manual_seed(0)
    return GPT(POSITIONS, width=128, depth=3)


def shards(model: Any, mesh: Any) -> nn.Module:
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def steps(model: nn.Module, kind: str, batch: Any, **options: Any) -> Callable[[], Any]:
    """A step of this kind, as often as it is called."""

    def losses(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x).transpose(1, 2), y, reduction="none").mean(1)

    if kind == "plain":
        base = SGD(model.parameters(), lr=0.01)

        def plain() -> None:
            base.zero_grad()
            losses(*batch).mean().backward()
            base.step()

        return plain
    every = 1 if kind == "measured" else 10**6
    optimizer = F3EO(model, SGD, lr=0.01, every=every, **options)
    optimizer.step(losses, *batch)  # knows its layouts, and measures the first time
    return lambda: optimizer.step(losses, *batch)


def work(rank: int, count: int, folder: str) -> None:
    """What a process does: every step and every piece in turn, several times over."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", count)
    timeout = timedelta(minutes=5)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=timeout)
    alone = [dist.new_group([r]) for r in range(count)][rank]
    mesh, own_mesh = init_device_mesh("cpu", (count,)), DeviceMesh.from_group(alone, "cpu")
    generator = torch.Generator().manual_seed(rank)
    text = torch.randint(VOCABULARY, (BATCH, POSITIONS + 1), generator=generator)
    batch = text[:, :-1], text[:, 1:]
    timed: dict[str, Callable[[], Any]] = {}
    for kind in KINDS:
        wrapped = nn.parallel.DistributedDataParallel(network())
        timed[f"DDP {kind}"] = steps(wrapped, kind, batch)
        own = {} if kind == "plain" else {"processes": alone}
        timed[f"DDP {kind} alone"] = steps(network(), kind, batch, **own)
        for name, of in (("", mesh), (" alone", own_mesh)):
            own = {} if kind == "plain" else {"estimator": Sharded()}
            timed[f"FSDP2 {kind}{name}"] = steps(shards(network(), of), kind, batch, **own)
    size = sum(p.numel() for p in network().parameters())
    whole, part = torch.ones(size), torch.ones(-(-size // count))
    padded = torch.ones(len(part) * count)
    timed["all-reduce"] = lambda: dist.all_reduce(whole)
    timed["all-gather"] = lambda: dist.all_gather_single(padded, part)
    timed["reduce-scatter"] = lambda: dist.reduce_scatter_single(part, padded)
    number = torch.ones(1)
    timed["number"] = lambda: dist.all_reduce(number)
    sent, exchanges = {}, {}
    for name in [f"{way} {kind}" for way in ("DDP", "FSDP2") for kind in KINDS]:
        for step in (timed[name], timed[name]):  # the first may prepare
            with Bytes() as counted:
                step()
        sent[name], exchanges[name] = counted.found, counted.count
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(ROUNDS):
        for name, step in timed.items():
            dist.barrier()
            start = perf_counter()
            step()
            dist.barrier()
            seconds[name].append(perf_counter() - start)
    if rank == 0:
        row = {"processes": count, "parameters": size, "gradient_bytes": 4 * size, "sent": sent}
        row["exchanges"] = exchanges
        row["seconds"] = {name: median(own) for name, own in seconds.items()}
        Path(folder, "row.json").write_text(json.dumps(row), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def measure(counts: tuple[int, ...] = (2, 4, 8)) -> None:
    """A row for each number of processes."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(work, (count, folder), nprocs=count)
            rows.append(json.loads(Path(folder, "row.json").read_text(encoding="utf-8")))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def predicted(row: dict[str, Any], way: str, kind: str) -> float:
    """Seconds of a step: its arithmetic, then its exchanges, each of them a start and its bytes at
    the speed of a large one."""
    seconds, whole, name = row["seconds"], row["gradient_bytes"], f"{way} {kind}"
    start = seconds["number"]
    large = {x: max(0.0, seconds[x] - start) / whole for x in row["sent"][name]}
    moved = sum(large[x] * own for x, own in row["sent"][name].items())
    return seconds[f"{name} alone"] + start * row["exchanges"][name] + moved


@dataclass(frozen=True)
class Cluster:
    """What a step runs on; the numbers of H100s: two fifths of the peak in TF32, four fifths of
    NVLink and nine tenths of InfiniBand.

    Args:
        nodes, gpus: nodes, and GPUs in each.
        flops: arithmetic that a GPU reaches, in 1/s.
        inside, between: bytes a second that a GPU sends within its node, and to other nodes.
    """

    nodes: int = 125
    gpus: int = 8
    flops: float = 2e14
    inside: float = 3.6e11
    between: float = 4.5e10


@dataclass(frozen=True)
class Plan:
    """A language model of L layers of width w, with m hidden units each, on text of T tokens.

    Sharded over the GPUs of a node, with a copy on every node (`fully_shard` on a mesh of two
    dimensions): parameters are gathered and gradients reduced within it, shards are summed between
    nodes.

    Args:
        layers, width, hidden, vocabulary: of the model.
        tokens: T, in one text.
        texts: on a GPU, in a step.
        element: bytes of a parameter or gradient on its way.
        fraction: part of the texts on which h is measured.
        every: steps from one measurement to the next.
        cluster: what it runs on.
    """

    layers: int = 32
    width: int = 4096
    hidden: int = 11008
    vocabulary: int = 32000
    tokens: int = 4096
    texts: int = 4
    element: int = 4
    fraction: float = 0.25
    every: int = 5
    cluster: Cluster = field(default_factory=Cluster)

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """(rows, columns) of every matrix that multiplies tokens."""
        w, m = self.width, self.hidden
        block = [(w, w)] * 4 + [(m, w), (m, w), (w, m)]
        return block * self.layers + [(self.vocabulary, w)]

    @property
    def parameters(self) -> int:
        """P: the matrices and the embedding."""
        return sum(p * q for p, q in self.matrices) + self.vocabulary * self.width

    def pass_flops(self, texts: float) -> float:
        """A forward and a backward pass: 6 T p q a matrix, and 12 T² w a layer for attention."""
        entries = sum(p * q for p, q in self.matrices)
        attention = 12 * self.tokens**2 * self.width * self.layers
        return texts * (6 * entries * self.tokens + attention)

    def written_out(self, shape: tuple[int, int]) -> bool:
        """Whether the ∇ℓ_i of a matrix are kept as they are, and not as outer products."""
        p, q = shape
        return self.tokens**2 * (p + q) > MEMORY_TRAFFIC * p * q

    def sample_flops(self, texts: float) -> float:
        """What single samples add: four products of T² (p + q), for norms and for the shift of the
        second pass, forward and back. What is written out adds none: a batch's own gradient is the
        sum, and the second pass multiplies by W + s_i ∇ℓ_i in place of W."""
        kept = [p + q for p, q in self.matrices if not self.written_out((p, q))]
        return 4 * texts * 2 * self.tokens**2 * sum(kept)

    @property
    def kept(self) -> float:
        """Bytes of the gradients of single samples that are written out between the passes."""
        written = sum(p * q for p, q in self.matrices if self.written_out((p, q)))
        return self.fraction * self.texts * written * self.element

    def exchange(self) -> float:
        """Seconds of what one pass exchanges: two gathers and a reduction in the node, and the sum
        of shards between nodes."""
        c, whole = self.cluster, self.parameters * self.element
        within = 3 * whole * (c.gpus - 1) / c.gpus / c.inside
        return within + 2 * whole / c.gpus * (c.nodes - 1) / c.nodes / c.between

    def passes(self, kind: str) -> list[float]:
        """FLOPs of the passes of a step, each of which exchanges once."""
        part = self.fraction * self.texts
        if kind != "measured":
            return [self.pass_flops(self.texts)]
        second = self.pass_flops(part) + self.sample_flops(part)
        return [self.pass_flops(self.texts - part), self.pass_flops(part), second]

    def seconds(self, kind: str, *, overlapped: bool) -> float:
        """A step: of each pass the longer of arithmetic and exchange, or their sum."""
        joined = max if overlapped else lambda a, b: a + b
        return sum(joined(f / self.cluster.flops, self.exchange()) for f in self.passes(kind))

    def mean(self, *, overlapped: bool) -> float:
        """Mean seconds of a step from one measurement to the next."""
        first, other = (
            self.seconds(kind, overlapped=overlapped) for kind in ("measured", "between")
        )
        return (first + (self.every - 1) * other) / self.every


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sent_table(rows: list[dict[str, Any]]) -> str:
    """Bytes of every kind of exchange, in gradients, of the row with most processes."""
    row = rows[-1]
    names = [name for name, _ in EXCHANGES.values()]
    lines = [
        [step, *[f"{own.get(name, 0) / row['gradient_bytes']:.2f}" for name in names]]
        for step, own in row["sent"].items()
    ]
    return table(["step", *names], lines)


def check_table(rows: list[dict[str, Any]]) -> str:
    """Predicted and measured seconds of every step."""
    lines = []
    for name in rows[0]["sent"]:
        way, kind = name.split()
        cells = []
        for row in rows:
            whole, plain = row["seconds"][name], row["seconds"]["DDP plain"]
            cells.append(f"{whole / plain:.2f} ({predicted(row, way, kind) / plain:.2f})")
        lines.append([name, *cells])
    return table(["step", *[f"{row['processes']} processes" for row in rows]], lines)


def plan_table(plan: Plan) -> str:
    """Seconds of a step of the plan, and its price in plain steps."""
    lines = []
    for name, at in (
        ("plain", lambda o: plan.seconds("plain", overlapped=o)),
        ("between two measurements", lambda o: plan.seconds("between", overlapped=o)),
        ("that measures h", lambda o: plan.seconds("measured", overlapped=o)),
        (f"mean of {plan.every} steps", lambda o: plan.mean(overlapped=o)),
    ):
        cells = [f"{at(o):.2f} s" for o in (True, False)]
        prices = [f"{at(o) / plan.seconds('plain', overlapped=o):.2f}" for o in (True, False)]
        lines.append([name, cells[0], prices[0], cells[1], prices[1]])
    return table(["step", "overlapped", "price", "one after another", "price"], lines)


def main() -> None:
    if sys.argv[1:] == ["measure"]:
        measure()
    elif sys.argv[1:]:
        sys.exit(f"unknown arguments {sys.argv[1:]}: leave them out, or give measure")
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    tables = "\n\n".join((sent_table(rows), check_table(rows), plan_table(Plan())))
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
