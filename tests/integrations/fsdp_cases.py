"""What is trained on several processes, and on one: the same function runs on both."""

from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from torch import Tensor
from torch.optim import SGD, AdamW, Muon

from f3eo import F3EO, ByRow, Elementwise, Factored, FiniteDifference, PerSample
from f3eo.closure.weighted import Weighted
from integrations.fsdp_models import batches, losses, model_of, shard, weights

WHOLE = {"fraction": 1, "every": 1}


@dataclass(frozen=True)
class Case:
    """One run.

    Args:
        model: its name.
        base: optimizer class.
        estimator: makes what `Sharded` takes; default that of F3EO.
        parts: sizes of the batches of the processes, in shares; default equal.
        weighted: whether samples have weights.
        micro: number of micro-batches in a step.
        options: of F3EO.
    """

    model: str
    base: Any = SGD
    estimator: Any = lambda: PerSample(metric=ByRow(), hold_residuals=True)
    parts: tuple[int, ...] = ()
    weighted: bool = False
    micro: int = 1
    options: dict[str, Any] = field(default_factory=lambda: WHOLE)


def central() -> PerSample:
    return PerSample(FiniteDifference(central=True), metric=ByRow(), hold_residuals=True)


CASES = {
    "mlp": Case("mlp"),
    "mlp adamw": Case("mlp", AdamW),
    "mlp momentum": Case("mlp", SGD, options={**WHOLE, "momentum": 0.9}),
    # Forward differences are 1e-8 with these bases: Adam divides gradients that are almost 0 by
    # themselves, Muon raises small singular values to 1.
    "muon": Case(
        "matrices",
        Muon,
        central,
    ),
    "uneven rows": Case("uneven"),
    "convolutional": Case("convolutional"),
    "frozen": Case("frozen", AdamW),
    "transformer": Case("transformer"),
    "transformer adamw": Case(
        "transformer",
        AdamW,
        central,
        options={**WHOLE, "lr": 0.005},
    ),
    "checkpointed": Case("checkpointed"),
    "computed": Case("computed"),
    "euclidean": Case("mlp", estimator=lambda: PerSample()),
    "elementwise": Case("uneven", estimator=lambda: PerSample(metric=Elementwise())),
    "factored": Case("mlp", estimator=lambda: PerSample(metric=Factored(vectors=0.5))),
    "squares": Case("uneven", estimator=lambda: PerSample(power=2.0)),
    "central": Case("mlp", estimator=lambda: PerSample(FiniteDifference(central=True))),
    "uneven batches": Case("mlp", parts=(5, 3, 7, 1)),
    "weighted": Case("mlp", AdamW, weighted=True),
    "every": Case("mlp", AdamW, options={"fraction": 1, "every": 2}),
    "max_norm": Case("mlp", options={**WHOLE, "max_norm": 0.1}),
    "micro-batches": Case("transformer", micro=2),
    "chunks": Case("mlp", options={**WHOLE, "chunk": 2}),
}


def own(batch, case, rank, count):
    """The part of a batch that a process has."""
    sizes = case.parts[:count] or (1,) * count
    total = len(batch[0])
    if case.parts:
        ends = [0]
        for size in sizes[:-1]:
            ends.append(ends[-1] + size)
        ends.append(total)
    else:
        ends = [total * r // count for r in range(count + 1)]
    return tuple(t[ends[rank] : ends[rank + 1]] for t in batch)


def train(name, rank=0, count=1, mesh=None):
    """Five steps; weights, losses and traces."""
    # Muon works in 16 bits, in which a product of shards is another one than that of wholes.
    with mock.patch.object(Tensor, "bfloat16", Tensor.double):
        return _train(name, rank, count, mesh)


def _train(name, rank, count, mesh):
    case = CASES[name]
    model = model_of(case.model)
    start = weights(model)
    estimator = case.estimator()
    if mesh is not None:
        from f3eo.integrations.fsdp import Sharded

        model, estimator = shard(model, mesh), Sharded(estimator)
    options = {"lr": 0.05, **case.options}
    optimizer = F3EO(model, case.base, estimator=estimator, **options)
    closure = losses(model)
    found = {"losses": [], "traces": []}
    for batch in batches(case.model):
        batch, step = own(batch, case, rank, count), closure
        if case.weighted:
            batch = (*batch, batch[0].abs().sum(1))
            step = weighted(closure)
        if case.micro > 1:
            for k in range(case.micro):
                loss = optimizer.accumulate(step, *[t[k :: case.micro] for t in batch])
            optimizer.step()
        else:
            loss = optimizer.step(step, *batch)
        found["losses"].append(float(loss))
        found["traces"].append(float(optimizer.trace))
    end = weights(model)
    return {**found, "weights": end, "way": float((end - start).norm())}


def weighted(closure):
    return lambda x, y, w: Weighted(closure(x, y), w)
