"""Gradient, curvature along it and structure gradient against the dense ones."""

import math

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dense import flat, hessian, truth
from f3eo import (
    DoubleBackward,
    Elementwise,
    FiniteDifference,
    MiniBatch,
    PerSample,
)
from f3eo.instruments import alignment
from instruments.truths import close, dense


def check(found, g, h, curvature, tolerance=1e-9):
    along = g / g.norm()
    close(found.curvature, along @ curvature @ along, tolerance)
    close(found.cosine, along @ h / h.norm(), tolerance)
    close(found.off, (h - along * (along @ h)).norm() / h.norm(), tolerance)
    close(found.gradient_norm, g.norm(), tolerance)
    close(found.structure_norm, h.norm(), tolerance)


MODELS = ["mlp", "regression", "attention", "tied", "sequence_first", "partly_frozen"]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_dense_one(name):
    d = dense(name)
    (x, y), parameters = d.case.batch, [p for p in d.model.parameters() if p.requires_grad]
    with sdpa_kernel(SDPBackend.MATH):  # others have no second derivative
        curvature = hessian(parameters, d.case.losses(x, y).mean())
    plain = truth(d.model, d.case.losses, x, y, power=1)
    found = alignment(d.model, d.closure, d.data)
    check(found, plain.gradient, plain.structure, curvature)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_with_power_metric_and_differences(power):
    d = dense("mlp")
    lengths = flat([p.detach().abs() for p in d.model.parameters()])
    expected = truth(d.model, d.closure, *d.case.batch, power=power, diagonal=lengths)
    curvature = hessian(list(d.model.parameters()), d.closure(*d.case.batch).mean())
    for engine, tolerance in ((DoubleBackward(), 1e-9), (FiniteDifference(), 1e-4)):
        estimator = PerSample(engine, power=power, metric=Elementwise())
        found = alignment(d.model, d.closure, iter(d.data), estimator=estimator)
        check(found, expected.gradient, expected.structure, curvature, tolerance)


def test_with_weights():
    d = dense("mlp", weighted=True)
    (x, y), parameters = d.case.batch, list(d.model.parameters())
    losses = d.case.losses(x, y)
    total = (d.shares * losses).sum()
    structure = 0
    for i, share in enumerate(d.shares):
        h = hessian(parameters, losses[i])
        structure = structure + share * h @ d.gradients[i] / d.gradients[i].norm()
    g = d.shares @ d.gradients
    check(alignment(d.model, d.closure, d.data), g, structure, hessian(parameters, total))


def test_a_batch_without_weight_counts_for_nothing():
    d = dense("mlp", weighted=True)
    (x, y, w), rest = d.data

    expected = alignment(d.model, d.closure, [rest])
    found = alignment(d.model, d.closure, [(x, y, 0 * w), rest])
    close(found.curvature, expected.curvature)
    close(found.gradient_norm, expected.gradient_norm)
    close(found.structure_norm, expected.structure_norm)


def test_where_the_gradient_or_h_is_zero():
    model = nn.Linear(2, 1)
    x = torch.randn(4, 2)
    linear = alignment(model, lambda x: model(x)[:, 0], [x])
    assert linear.curvature == 0 and linear.structure_norm == 0 and math.isnan(linear.cosine)
    flat_ = alignment(model, lambda x: 0 * model(x)[:, 0], [x])
    assert flat_.gradient_norm == 0 and math.isnan(flat_.curvature)


def test_an_estimator_that_is_no_mean_is_refused():
    d = dense("mlp")
    with pytest.raises(ValueError, match=r"a mean over samples.*received MiniBatch\(\)"):
        alignment(d.model, d.closure, d.data, estimator=MiniBatch())
