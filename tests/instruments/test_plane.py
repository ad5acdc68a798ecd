"""The landscape against a quadratic in closed form, and the plane against the dense truth."""

import pytest
import torch
from torch import nn

from cases import case
from dense import flat, hessian, truth
from f3eo import Weighted
from f3eo.instruments.plane import Plane, landscape, structure_plane


def halves(batch):
    return [tuple(t[:2] for t in batch), tuple(t[2:] for t in batch)]


@pytest.mark.parametrize("name", ["mlp", "attention", "tied", "partly_frozen"])
def test_the_plane_is_that_of_g_and_of_h_without_g(name):
    c = case(name)
    dense = truth(c.model, c.losses, *c.batch, power=1)
    plane = structure_plane(c.model, c.losses, halves(c.batch))
    g, h = dense.gradient, dense.structure
    d = h - (h @ g) / (g @ g) * g
    torch.testing.assert_close(flat(plane.across), g / g.norm(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(flat(plane.along), d / d.norm(), rtol=1e-4, atol=1e-6)
    assert abs(float(flat(plane.along) @ flat(plane.across))) < 1e-12


def test_a_quadratic_loss_is_its_own_expansion():
    model = nn.Linear(3, 1, dtype=torch.float64)
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 1, dtype=torch.float64)
    weights = torch.rand(7, dtype=torch.float64)

    def closure(x, y, w):
        return Weighted((model(x) - y).square().sum(1), w)

    parameters = list(model.parameters())
    loss = (weights / weights.sum()) @ (model(x) - y).square().sum(1)
    g, H = flat(torch.autograd.grad(loss, parameters, retain_graph=True)), hessian(parameters, loss)
    plane = structure_plane(model, closure, [(x, y, weights)])
    batches = [(x[:2], y[:2], weights[:2]), (x[2:], y[2:], weights[2:])]
    found = landscape(model, closure, batches, plane, reach=0.5, points=5)
    assert found.steps.tolist() == [-0.5, -0.25, 0, 0.25, 0.5]
    for i, a in enumerate(found.steps):
        for j, b in enumerate(found.steps):
            v = a * flat(plane.along) + b * flat(plane.across)
            torch.testing.assert_close(found.losses[i, j], loss + g @ v + 0.5 * v @ H @ v)


def test_the_model_is_as_it_was_and_the_path_is_projected():
    c = case("partly_frozen")
    trained = [p for p in c.model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in c.model.parameters()]
    plane = structure_plane(c.model, c.losses, [c.batch])
    path = [
        [p + 0.3 * u - 0.2 * v for p, u, v in zip(trained, plane.along, plane.across, strict=True)]
    ]
    found = landscape(c.model, c.losses, [c.batch], plane, reach=1, points=3, path=path)
    torch.testing.assert_close(found.path, torch.tensor([[0.3, -0.2]], dtype=torch.float64))
    assert all(torch.equal(p, b) for p, b in zip(c.model.parameters(), before, strict=True))
    assert all(p.grad is None for p in c.model.parameters())
    assert landscape(c.model, c.losses, [c.batch], plane, reach=1, points=3).path.shape == (0, 2)


def test_the_model_is_as_it_was_after_an_error():
    c = case("mlp")
    before = [p.detach().clone() for p in c.model.parameters()]
    plane = structure_plane(c.model, c.losses, [c.batch])

    def fails(x, y):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        landscape(c.model, fails, [c.batch], plane, reach=1, points=3)
    assert all(torch.equal(p, b) for p, b in zip(c.model.parameters(), before, strict=True))


def test_bad_input_is_refused():
    c = case("mlp")
    plane = structure_plane(c.model, c.losses, [c.batch])
    arguments = c.model, c.losses, [c.batch], plane
    for reach in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"finite distance > 0, received {reach}"):
            landscape(*arguments, reach=reach)
    for points in (2, 0, -1, 20):
        with pytest.raises(ValueError, match=f"points must be odd, received {points}"):
            landscape(*arguments, reach=1, points=points)
    with pytest.raises(ValueError, match="the path has tensors of other shapes"):
        landscape(*arguments, reach=1, path=[plane.along[:1]])
    with pytest.raises(ValueError, match="the plane has tensors of other shapes"):
        landscape(*arguments[:3], Plane(plane.along[1:], plane.across), reach=1)


def test_where_nothing_moves_there_is_no_plane():
    model = nn.Linear(2, 1)

    def fitted(x):
        return (model(x) - model(x).detach()).square().sum(1)

    with pytest.raises(ValueError, match="the loss gradient g has length 0"):
        structure_plane(model, fitted, [torch.ones(3, 2)])
