"""What makes a step cheaper or smaller: fraction, chunk; and the stated cost.

For every: test_every.py.
"""

import copy
from itertools import combinations

import pytest
import torch
from torch.optim import SGD, Adam

from cases import WHOLE, case
from dense import relative, truth
from f3eo import (
    F3EO,
    Coupled,
    DoubleBackward,
    FiniteDifference,
    Fixed,
    MiniBatch,
    ModelSampled,
    PerSample,
    Ratio,
    Sign,
)
from f3eo.extend import Direct
from optimizer.helpers import (
    Counting,
    batches,
    flat,
    gradient,
    losses,
    network,
    weights,
)

# Fraction.


def test_h_of_all_parts_averages_to_the_whole(monkeypatch):
    """Unbiased: over all (6 choose 2) parts; ∇L is that of the whole batch each time."""
    row = network()
    x, y = row.batch
    whole = truth(row.model, row.losses, x, y).structure
    g = flat(gradient(row.model, row.batch))
    found = []
    for inside in combinations(range(6), 2):
        outside = [i for i in range(6) if i not in inside]
        monkeypatch.setattr(
            "f3eo.fisher.parts.random_parts",
            lambda *_, i=inside, o=outside: (torch.tensor(i), torch.tensor(o)),
        )
        model = copy.deepcopy(row.model)
        optimizer = F3EO(
            model,
            SGD,
            lr=0.1,
            estimator=PerSample(DoubleBackward(), power=2),
            rule=Coupled(),
            strength=Fixed(1.0),
            fraction=1 / 3,
            every=1,
        )
        loss = optimizer.step(losses(model), x, y)
        assert float(loss) == pytest.approx(float(row.losses(x, y).detach().mean()), rel=1e-14)
        found.append(flat(p.grad for p in model.parameters()) - g)
    assert relative(torch.stack(found).mean(0), whole) < 1e-12
    assert relative(found[0], whole) > 1e-2


@pytest.mark.parametrize("estimator", [PerSample, Sign, ModelSampled])
@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9])
def test_with_a_fraction_the_loss_gradient_is_that_of_the_whole_batch(fraction, estimator):
    """Seen in the base's first moment, which the structure term does not enter."""
    row = network()
    optimizer = F3EO(
        row.model,
        Adam,
        lr=0.05,
        fraction=fraction,
        estimator=estimator(),
        betas=(0.0, 0.9),
        every=1,
    )
    closure = row.drawn if estimator is ModelSampled else row.losses
    for batch in batches(3, size=10):
        g = gradient(row.model, batch)
        optimizer.step(closure, *batch)
        moments = [optimizer.base.state[p]["exp_avg"] for p in row.model.parameters()]
        assert relative(flat(moments), flat(g)) < 1e-12


@pytest.mark.parametrize(
    ("fraction", "size", "part"), [(0.25, 8, 2), (0.01, 8, 1), (0.9, 8, 7), (0.99, 8, 8)]
)
def test_the_fraction_is_rounded_to_at_least_one_sample(fraction, size, part):
    row, counting = network(), Counting()
    optimizer = F3EO(row.model, SGD, lr=0.1, fraction=fraction, estimator=counting, every=1)
    optimizer.step(row.losses, *batches(1, size)[0])
    assert counting.sizes == [part]


def test_the_part_is_drawn_from_the_generator_and_differs_from_step_to_step():
    found = []
    for _ in range(2):
        row, generator = network(), torch.Generator().manual_seed(3)
        optimizer = F3EO(row.model, SGD, lr=0.1, fraction=0.5, generator=generator, every=1)
        traces = []
        before = torch.get_rng_state()
        for _ in range(4):
            row.model.load_state_dict(network().model.state_dict())
            optimizer.step(row.losses, *row.batch)
            traces.append(float(optimizer.trace))
        assert torch.equal(before, torch.get_rng_state())
        found.append(traces)
    assert found[0] == found[1]
    assert len(set(found[0])) > 1


COSTS = {  # gradient equivalents = forward passes / 3
    "defaults": ({}, 6 / 3),
    "strength 0": ({"strength": Ratio(0.0)}, 1.0),
    "a quarter": ({"fraction": 0.25}, (3 + 3 * 0.25) / 3),
    "every 2": ({"every": 2}, (6 + 3) / 6),
    "both": ({"fraction": 0.5, "every": 4}, (3 + 3 * 0.5 + 9) / 12),
    "central": ({"estimator": PerSample(FiniteDifference(central=True), power=2)}, 9 / 3),
    "exact": ({"estimator": PerSample(DoubleBackward(), power=2)}, 7 / 3),
    "exact, a quarter": (
        {"estimator": PerSample(DoubleBackward(), power=2), "fraction": 0.25},
        (3 + 4 * 0.25) / 3,
    ),
    "exact, every 2": (
        {"estimator": PerSample(DoubleBackward(), power=2), "every": 2},
        (7 + 3) / 6,
    ),
    "batch": ({"estimator": MiniBatch()}, 3.0),
    "sign": ({"estimator": Sign()}, 3.0),
    "sign, differences": ({"estimator": Sign(FiniteDifference())}, 2.0),
    "direct, every 4": ({"rule": Direct(), "every": 4}, 2.0),
}


@pytest.mark.parametrize("name", COSTS)
def test_the_cost_is_stated(name):
    options, cost = COSTS[name]
    optimizer = F3EO(network().model, SGD, lr=0.1, **WHOLE | options)
    assert optimizer.gradient_equivalents == pytest.approx(cost, rel=1e-12)


# Chunk.


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 6, 100])
@pytest.mark.parametrize("name", ["mlp", "attention"])
def test_chunks_equal_the_whole(name, chunk):
    found = []
    for size in (None, chunk):
        row = case(name)
        optimizer = F3EO(
            row.model,
            Adam,
            lr=0.01,
            chunk=size,
            estimator=PerSample(DoubleBackward(), power=2),
            fraction=1,
            every=1,
        )
        loss = [optimizer.step(row.losses, *row.batch) for _ in range(3)]
        found.append((weights(row.model), torch.stack([*loss, optimizer.trace])))
    for whole, parts in zip(*found, strict=True):
        assert relative(parts, whole) < 1e-12


@pytest.mark.parametrize(("engine", "passes"), [(FiniteDifference(), 2), (DoubleBackward(), 1)])
def test_no_more_samples_than_a_chunk_go_through_the_model_at_once(engine, passes):
    """A chunk's second pass follows its first: no other is there at the same time."""
    row = network()
    sizes = []

    def closure(x, y):
        if torch.is_grad_enabled():
            sizes.append(len(x))
        assert len(x) <= 4
        return row.losses(x, y)

    optimizer = F3EO(
        row.model, SGD, lr=0.1, chunk=4, estimator=PerSample(engine, power=2), fraction=1, every=1
    )
    for _ in range(2):  # are checked
        optimizer.step(closure, *batches(1, 10)[0])
    sizes.clear()
    optimizer.step(closure, *batches(1, 10)[0])
    assert sizes == [size for size in (4, 4, 2) for _ in range(passes)]


def test_chunks_and_fraction_together():
    """A part is drawn of every chunk; ∇L is that of the whole batch."""
    row = network()
    optimizer = F3EO(row.model, Adam, lr=0.05, chunk=4, fraction=0.5, betas=(0.0, 0.9), every=1)
    batch = batches(1, 10)[0]
    g = gradient(row.model, batch)
    optimizer.step(row.losses, *batch)
    moments = [optimizer.base.state[p]["exp_avg"] for p in row.model.parameters()]
    assert relative(flat(moments), flat(g)) < 1e-12
    assert optimizer.trace is not None
