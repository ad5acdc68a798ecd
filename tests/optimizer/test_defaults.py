"""The defaults: which they are, and their step against the method on one long vector."""

import logging

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from dense import relative
from f3eo import (
    F3EO,
    ByRow,
    Compiled,
    Decoupled,
    DoubleBackward,
    FiniteDifference,
    MiniBatch,
    ModelSampled,
    PerSample,
    Sensitivity,
    Sign,
)
from optimizer.helpers import UNKNOWN, batches, losses, network, weights
from optimizer.reference import DEFAULT, Method, adamw, run, sgd


def test_the_defaults_are_these():
    optimizer = F3EO(nn.Linear(2, 2), SGD, lr=0.1)
    estimator, metric = optimizer.estimator, optimizer.estimator.metric
    assert type(estimator) is PerSample and estimator.power == 1 and estimator.hold_residuals
    assert type(metric) is ByRow and metric.vectors is None
    assert type(estimator.engine) is FiniteDifference
    assert repr(estimator.emphasis) == "Uniform()"
    assert type(optimizer.rule) is Decoupled
    assert repr(optimizer.strength) == "Sensitivity()"
    assert (optimizer.fraction, optimizer.every) == (None, 5)


def default():
    return PerSample(metric=ByRow(), hold_residuals=True)


PARTS_NAMED = {
    "estimator": [default(), Compiled(default()), Compiled(default(), backend=None)],
    "rule": [Decoupled()],
    "strength": [Sensitivity()],
    "fraction": [0.25],
    "every": [5],
}


@pytest.mark.parametrize(("part", "value"), [(k, v) for k, vs in PARTS_NAMED.items() for v in vs])
def test_naming_a_part_that_is_the_default_changes_nothing(part, value):
    """`Compiled` is the same method to rounding: nothing of it is compiled in the first steps."""
    found = []
    for given in ({}, {part: value}):
        row = network()
        row.model.float()
        generator = torch.Generator().manual_seed(3)
        optimizer = F3EO(row.model, SGD, lr=0.1, generator=generator, **given)
        for x, y in batches(7, 16, torch.float32):
            optimizer.step(row.losses, x, y)
        found.append(weights(row.model))
    assert relative(found[1], found[0]) < 1e-6


ESTIMATORS = {  # and the strength that F3EO takes with them
    "trace": (PerSample(power=2), "Fitted(0.04)"),
    "Euclidean": (PerSample(), "Fitted(0.04)"),
    "Euclidean, held": (PerSample(hold_residuals=True), "Fitted(0.04)"),
    "Euclidean, compiled": (Compiled(backend=None), "Fitted(0.04)"),
    "sign": (Sign(), "Fitted(0.04)"),
    "batch": (MiniBatch(), "Fitted(0.04)"),
    "model": (ModelSampled(), "Fitted(0.04)"),
    "in units": (PerSample(metric=ByRow()), "Sensitivity()"),
    "in units, compiled": (
        Compiled(PerSample(metric=ByRow()), backend=None),
        "Sensitivity()",
    ),
}


@pytest.mark.filterwarnings(UNKNOWN)
@pytest.mark.parametrize(
    ("base", "limit"),
    [(SGD, 0.3), (AdamW, 0.3), (torch.optim.Muon, 1.0), (torch.optim.Adadelta, 1.0)],
)
def test_the_default_limit_is_longer_beside_a_base_of_unknown_metric(base, limit):
    optimizer = F3EO(nn.Linear(2, 2, bias=False), base, lr=0.1)
    assert type(optimizer.strength) is Sensitivity and optimizer.strength.limit == limit


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_default_strength_has_the_units_of_the_estimator_and_no_other_part_changes(name):
    estimator, strength = ESTIMATORS[name]
    optimizer = F3EO(nn.Linear(2, 2), SGD, lr=0.1, estimator=estimator)
    assert repr(optimizer.strength) == strength and type(optimizer.rule) is Decoupled
    assert (optimizer.fraction, optimizer.every) == (None, 5)


def test_the_default_does_not_know_the_unit_of_the_loss():
    """Losses times 40 at a fortieth of the rate are trained alike."""
    found = []
    for unit in (1.0, 40.0):
        row = network()
        optimizer = F3EO(row.model, SGD, lr=0.1 / unit, estimator=exact(), fraction=1)
        for batch in batches(3):
            optimizer.step(lambda x, y, m=row, c=unit: m.losses(x, y) * c, *batch)
        found.append(weights(row.model))
    assert relative(*found) < 1e-12


# The step.


def exact():
    return PerSample(DoubleBackward(), metric=ByRow(), hold_residuals=True)


def mlp():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def filters():
    return nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(12, 3)
    )


def data():
    """Some batches hold an input under all labels: ∇L is short there, and the limit binds."""
    found = batches(7)
    for k, inputs in ((0, 2), (2, 2), (3, 2), (6, 1)):
        labels = torch.arange(6) // inputs % 3
        found[k] = found[k][0][:inputs].repeat(6 // inputs, 1), labels
    return found


BASES = {
    "sgd": (
        SGD,
        {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
        sgd(0.05, 0.9, 0.01),
    ),
    "adamw": (AdamW, {"lr": 0.02, "weight_decay": 0.1}, adamw(0.02, 0.1)),
}
ENGINES = {"exact": (exact, 1e-10), "default": (lambda: None, 1e-6)}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("make", "scale"), [(mlp, 1), (filters, 2)])
def test_the_default_step_is_that_of_the_formulas(make, scale, base, every, engine, caplog):
    """Rows of weights as units, residuals held, λ by the sensitivity, `every` times as strong."""
    caplog.set_level(logging.INFO, logger="f3eo")
    kind, options, formula = BASES[base]
    estimator, tolerance = ENGINES[engine]
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(make().double())
        with torch.no_grad():
            for p in models[-1].parameters():
                p *= scale  # so that the limit binds at some steps, and at others does not
    ours, theirs = models
    method = Method(DEFAULT.strength, by_rows=True, held=True, every=every)
    expected = list(run(theirs, losses(theirs), data(), formula, method))
    optimizer = F3EO(ours, kind, estimator=estimator(), fraction=1, every=every, **options)
    for step, batch in zip(expected, data(), strict=True):
        loss = optimizer.step(losses(ours), *batch)
        assert float(loss) == pytest.approx(step.loss, rel=tolerance)
        assert float(optimizer.trace) == pytest.approx(step.trace, rel=tolerance)
        assert relative(weights(ours), step.theta) < tolerance
    # Each engine by itself: double backward would hide what is wrong in the second pass.
    assert not [r for r in caplog.records if "instead of finite diff" in r.message]
    ratios = [s.ratio for s in expected if s.strength is not None]
    assert len(ratios) == len(range(0, 7, every))
    limited = [r == pytest.approx(0.3) for r in ratios]
    assert every > 1 or (any(limited) and not all(limited)), ratios
