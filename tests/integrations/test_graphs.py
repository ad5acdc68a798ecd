"""Samples that are graphs, in one batch of all nodes and edges as PyTorch Geometric makes it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

from dense import relative, truth
from f3eo import F3EO, ByRow, DoubleBackward, FiniteDifference, PerSample

SIZES = [3, 5, 4, 2, 6, 3, 4, 6]


class Network(nn.Module):
    """Two layers of messages and a mean over the nodes of each graph."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.double()

    def forward(self, x, edges, graph, count):
        x = torch.tanh(self.first(x))
        x = torch.tanh(self.second(x + torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])))
        return self.head(x.new_zeros(count, 8).index_add(0, graph, x))


def graphs():
    """Nodes (n, 4), edges (2, e) and label of every graph: one mapping a graph."""
    draw = torch.Generator().manual_seed(1)
    return [
        {
            "x": torch.randn(size, 4, generator=draw, dtype=torch.float64),
            "edges": torch.randint(size, (2, 2 * size), generator=draw),
            "y": torch.randint(3, (), generator=draw),
        }
        for size in SIZES
    ]


def collated(samples):
    """All nodes and edges in one graph, the graph of every node, and the labels."""
    sizes = [len(s["x"]) for s in samples]
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    edges = [s["edges"] + start for s, start in zip(samples, starts, strict=True)]
    graph = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    x = torch.cat([s["x"] for s in samples])
    return x, torch.cat(edges, 1), graph, torch.stack([s["y"] for s in samples])


def of_list(model):
    """The batch is a list of graphs, and goes through the model graph by graph (chunk=1)."""

    def losses(samples):
        x, edges, graph, y = collated(samples)
        return F.cross_entropy(model(x, edges, graph, len(samples)), y, reduction="none")

    return losses, (graphs(),), {"chunk": 1}


def of_index(model):
    """The batch is the index of graphs; all of them go through the model."""
    x, edges, graph, y = collated(graphs())

    def losses(i):
        return F.cross_entropy(model(x, edges, graph, len(y))[i], y[i], reduction="none")

    return losses, (torch.arange(len(y)),), {}


def of_losses(model):
    """The same, where the losses of all graphs are computed first."""
    x, edges, graph, y = collated(graphs())

    def losses(i):
        return F.cross_entropy(model(x, edges, graph, len(y)), y, reduction="none")[i]

    return losses, (torch.arange(len(y)),), {}


WAYS = {"list": of_list, "index": of_index, "index of losses": of_losses}


def row(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def recorded(model, losses, batch, **options):
    optimizer = F3EO(model, SGD, lr=0.0, fraction=1, every=1, **options)
    records = []
    optimizer.observe(records.append)
    optimizer.step(losses, *batch)
    return records[0]


@pytest.mark.parametrize("engine", [DoubleBackward(), FiniteDifference()], ids=repr)
@pytest.mark.parametrize("name", WAYS)
def test_graphs_are_samples(name, engine):
    model = Network()
    losses, batch, options = WAYS[name](model)
    index, (alone, _, _) = torch.arange(len(SIZES)), of_index(model)
    expected = truth(model, alone, index, power=1)
    record = recorded(model, losses, batch, estimator=PerSample(engine), **options)
    assert relative(row(record.gradient), expected.gradient) < 1e-9
    assert relative(record.trace, expected.trace) < 1e-9
    assert relative(row(record.structure), expected.structure) < 1e-5


@pytest.mark.parametrize("name", ["list", "index"])
def test_graphs_with_the_default(name):
    """Held residuals and the metric by rows: the ways agree, and part of a batch is one."""
    model = Network()
    found = [recorded(model, *way(model)[:2], **way(model)[2]) for way in (WAYS[name], of_index)]
    assert relative(found[0].trace, found[1].trace) < 1e-9
    assert relative(row(found[0].structure), row(found[1].structure)) < 1e-5
    losses, batch, options = WAYS[name](model)
    optimizer = F3EO(model, SGD, lr=0.1, fraction=0.5, **options)
    for _ in range(6):
        optimizer.step(losses, *batch)
    assert optimizer.skipped == 0 and optimizer.trace > 0


def test_residuals_of_losses_that_are_chosen_afterwards_are_not_held(caplog):
    model = Network()
    losses, batch, _ = of_losses(model)
    caplog.set_level("INFO", logger="f3eo")
    record = recorded(model, losses, batch)
    assert "model(x)[i] in place of losses[i]" in caplog.text
    whole = recorded(model, losses, batch, estimator=PerSample(metric=ByRow()))
    assert relative(record.trace, whole.trace) < 1e-9 and record.trace > 0
    assert relative(row(record.structure), row(whole.structure)) < 1e-5


def test_nodes_and_edges_as_arguments_are_refused_with_the_way_out():
    model = Network()
    x, edges, graph, y = collated(graphs())
    with pytest.raises(ValueError, match=r"sizes \[2, 8, 33\].*index of the samples"):
        F3EO(model, SGD, lr=0.1).step(
            lambda x, e, g, y: F.cross_entropy(model(x, e, g, 8), y, reduction="none"),
            *(x, edges, graph, y),
        )


def test_graphs_in_the_closure_are_refused_with_the_way_out():
    model = Network()
    losses, batch, _ = of_list(model)
    for closure, given in ((losses, batch), (lambda: losses(*batch), ())):
        with pytest.raises(ValueError, match=r"one mapping a sample.*chunk=1"):
            F3EO(model, SGD, lr=0.1, fraction=1).step(closure, *given)
