"""All engines give H v: the exact one to rounding, finite differences within their documented "
"error."""

import pytest
import torch

from cases import case
from dense import flat, hessian, relative
from f3eo import DoubleBackward, FiniteDifference
from f3eo.curvature.guard import Differs

SMOOTH = ["mlp", "regression", "attention"]
# (engine, largest relative error in float64, in float32)
ENGINES = {
    "double backward": (DoubleBackward(), 1e-12, 1e-5),
    "forward": (FiniteDifference(), 1e-6, 5e-3),
    "central": (FiniteDifference(central=True), 1e-8, 1e-3),
}


def product(engine, c, scale=1.0):
    parameters = list(c.model.parameters())

    def objective(**_):
        return (
            [scale * c.losses(*c.batch).flatten(1).mean()]
            if c.batch[1].ndim > 1
            else [scale * c.losses(*c.batch).mean()]
        )

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found = engine.product([objective], [1.0], parameters, [True] * len(parameters))
        h = hessian(parameters, objective()[0])
    return found, h @ flat(found.vector)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SMOOTH)
def test_product_equals_the_dense_hessian(engine, name):
    made, tolerance, _ = ENGINES[engine]
    found, expected = product(made, case(name))
    assert relative(flat(found.product), expected) < tolerance


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SMOOTH)
def test_single_precision(engine, name):
    made, _, tolerance = ENGINES[engine]
    double, single = case(name), case(name)
    expected = product(DoubleBackward(), double)[1]
    single.model.float()
    batch = tuple(t.float() if t.is_floating_point() else t for t in single.batch)
    found, _ = product(made, type(single)(single.model, batch, single.likelihood))
    assert relative(flat(found.product).double(), expected) < tolerance


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_step_follows_the_scale_of_the_loss(central, scale):
    found, expected = product(FiniteDifference(central=central), case("mlp"), scale)
    assert relative(flat(found.product), expected) < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_signed_pair_gives_both_gradients_and_one_product(engine):
    c = case("mlp")
    parameters = list(c.model.parameters())
    x, y = c.batch
    objectives = [
        lambda **_: [c.losses(x[:2], y[:2]).sum()],
        lambda **_: [c.losses(x[2:], y[2:]).sum()],
    ]
    found = ENGINES[engine][0].product(objectives, [0.5, -0.5], parameters, [True] * 6)
    plus, minus = (torch.autograd.grad(f()[0], parameters) for f in objectives)
    for gradient, expected in zip(found.gradients, (plus, minus), strict=True):
        assert relative(flat(gradient), flat(expected)) < 1e-12
    vector = 0.5 * (flat(plus) - flat(minus))
    assert relative(flat(found.vector), vector) < 1e-12
    h = hessian(parameters, 0.5 * (objectives[0]()[0] - objectives[1]()[0]))
    assert relative(flat(found.product), h @ vector) < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_parameters_are_bit_for_bit_as_before(engine):
    c = case("cnn")
    before = [p.detach().clone() for p in c.model.parameters()]
    product(ENGINES[engine][0], c)
    assert all(torch.equal(a, b) for a, b in zip(before, c.model.parameters(), strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_linear_loss_has_product_zero(engine):
    w = torch.randn(4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, dtype=torch.float64)
    found = ENGINES[engine][0].product([lambda **_: [w @ x]], [1.0], [w], [True])
    assert found.product[0].abs().max() < 1e-7


@pytest.mark.parametrize("step", [0, -1e-3, float("nan")])
def test_a_step_must_be_positive(step):
    with pytest.raises(ValueError, match="step > 0, received"):
        FiniteDifference(step=step)


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("fails", ["before", "halfway"])
def test_weights_are_put_back_one_by_one_where_they_cannot_be_at_once(fails, central, monkeypatch):
    """As DTensors beside others cannot; the closure fails off the weights or does not."""
    parameters = [torch.randn(3, 2, requires_grad=True), torch.randn(4, requires_grad=True)]
    before = [p.detach().clone() for p in parameters]
    calls = []

    def copy(targets, values):
        calls.append(len(targets))
        if fails == "halfway":
            targets[0].copy_(values[0])
        raise RuntimeError("mixed tensors")

    def objective(dies=False, **_):
        if dies and not torch.equal(parameters[0], before[0]):
            raise ZeroDivisionError
        return [sum((p**3).sum() for p in parameters)]

    monkeypatch.setattr(torch, "_foreach_copy_", copy)
    engine = FiniteDifference(central=central)
    engine.product([objective], [1.0], parameters, [True, True])
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
    with pytest.raises(Differs, match=r"failed when run again, ZeroDivisionError"):
        engine.product([lambda **_: objective(dies=True)], [1.0], parameters, [True, True])
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
    assert len(calls) == (3 if central else 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_objective_of_other_parameters_is_an_error(engine):
    w, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="depend on none of the 1 parameters"):
        ENGINES[engine][0].product([lambda **_: [other @ other]], [1.0], [w], [True])


def test_the_distance_of_a_difference_is_its_step_in_norms_of_the_parameters():
    w = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    engine = FiniteDifference(step=0.01)
    found = engine.product([lambda **_: [w.square().sum()]], [1.0], [w], [True])
    assert found.distance == pytest.approx(0.01 * 5)
    assert DoubleBackward().product([lambda **_: [w @ w]], [1.0], [w], [True]).distance == 0
