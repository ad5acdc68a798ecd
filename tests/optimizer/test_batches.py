"""What a closure may be handed: nothing, or tensors in any nesting."""

from collections import UserDict, namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD

from cases import WHOLE
from dense import relative
from f3eo import (
    F3EO,
    Categorical,
    DoubleBackward,
    FiniteDifference,
    MiniBatch,
    PerSample,
    Ratio,
    Sign,
)
from optimizer.helpers import ESTIMATORS, batches, network, weights

Pair = namedtuple("Pair", "x y")
NESTINGS = {
    "dict": (lambda x, y: ({"x": x, "y": y},), lambda d: (d["x"], d["y"])),
    "user dict": (lambda x, y: (UserDict(x=x, y=y),), lambda d: (d["x"], d["y"])),
    "namedtuple": (lambda x, y: (Pair(x, y),), lambda p: (p.x, p.y)),
    "list": (lambda x, y: ([x, y],), lambda p: p),
    "deep": (
        lambda x, y: ({"in": [x, None]}, Pair({"y": y}, "name"), 0.5),
        lambda a, b, c: (a["in"][0], b.x["y"]),
    ),
}


@pytest.mark.parametrize("options", [{}, {"fraction": 0.5}, {"chunk": 4}, {"estimator": Sign()}])
@pytest.mark.parametrize("name", NESTINGS)
def test_nested_batches_are_split_and_handed_on_as_they_are(name, options):
    pack, unpack = NESTINGS[name]
    found = []
    for nested in (False, True):
        row = network()
        generator = torch.Generator().manual_seed(1)
        optimizer = F3EO(row.model, SGD, lr=0.1, generator=generator, **WHOLE | options)
        for batch in batches(2, 8):
            if nested:
                optimizer.step(lambda *b, row=row: row.losses(*unpack(*b)), *pack(*batch))
            else:
                optimizer.step(row.losses, *batch)
        found.append(weights(row.model))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if not n.startswith("sign")])
def test_a_closure_may_hold_its_batch_itself(name):
    found = []
    for held in (False, True):
        row = network()
        generator = torch.Generator().manual_seed(1)
        optimizer = F3EO(
            row.model,
            SGD,
            lr=0.1,
            estimator=ESTIMATORS[name](),
            generator=generator,
            fraction=1,
            every=1,
        )
        for batch in batches(3):
            if held:
                optimizer.step(lambda row=row, batch=batch: row.drawn(*batch))
            else:
                optimizer.step(row.drawn, *batch)
        found.append(weights(row.model))
    assert relative(*found) < 1e-12


@pytest.mark.parametrize("engine", [None, FiniteDifference()])
def test_signs_work_without_a_batch_to_split(engine):
    row = network()
    optimizer = F3EO(row.model, SGD, lr=0.1, estimator=Sign(engine), fraction=1, every=1)
    first = optimizer.step(lambda: row.losses(*row.batch))
    for _ in range(30):
        last = optimizer.step(lambda: row.losses(*row.batch))
    assert last < first and optimizer.skipped == 0


def test_positions_are_averaged_within_their_sample():
    """Losses (B, T): the sample's loss is their mean, and so is a likelihood's."""
    found = []
    for kind in ("losses", "mean", "likelihood"):
        row = network()
        optimizer = F3EO(
            row.model,
            SGD,
            lr=0.1,
            estimator=PerSample(DoubleBackward(), power=2),
            fraction=1,
            every=1,
        )

        def closure(x, y, kind=kind, row=row):
            z = row.model(x)
            if kind == "likelihood":
                return Categorical(z, y)
            each = F.cross_entropy(z.movedim(-1, 1), y, reduction="none")
            return each if kind == "losses" else each.mean(1)

        x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for _ in range(3):
            optimizer.step(closure, x, torch.arange(12).view(4, 3) % 3)
        found.append(weights(row.model))
    assert relative(found[1], found[0]) < 1e-12 and relative(found[2], found[0]) < 1e-12


@pytest.mark.parametrize("strength", [None, Ratio(0)])
def test_a_scalar_loss_will_do_for_the_batch_estimator(strength):
    found = []
    for reduction in ("none", "mean"):
        row = network()
        optimizer = F3EO(
            row.model, SGD, lr=0.1, estimator=MiniBatch(), strength=strength, fraction=1, every=1
        )
        for batch in batches(3):
            optimizer.step(
                lambda x, y, r=reduction, row=row: F.cross_entropy(row.model(x), y, reduction=r),
                *batch,
            )
        found.append(weights(row.model))
    assert relative(*found) < 1e-14


def test_an_estimator_serves_one_model_after_another():
    """What it remembers of a model does not mislead it on the next."""
    estimator, found = PerSample(DoubleBackward(), power=2), []
    for shared in (True, False):
        for seed in (0, 1):
            row = network(seed=seed)
            optimizer = F3EO(
                row.model,
                SGD,
                lr=0.1,
                estimator=estimator if shared else PerSample(DoubleBackward(), power=2),
                fraction=1,
                every=1,
            )
            for batch in batches(2, 5 + seed):
                optimizer.step(row.losses, *batch)
            found.append(weights(row.model))
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
