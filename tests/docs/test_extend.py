"""The parts of docs/extend.md against dense float64 autograd, or against a part they equal."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD, Adam

import f3eo.extend
from dense import flat, hessian, relative, truth
from docs.pages import block, blocks, names, registries, run, text
from f3eo import F3EO, Coupled, FiniteDifference, Fixed, MiniBatch, ModelSampled, fisher_trace

WHOLE = {"rule": Coupled(), "strength": Fixed(1.0), "fraction": 1, "every": 1}


def part(name):
    """The class of an example, and a float64 problem."""
    space = run(block("extend.md", containing=f"class {name}("))
    fresh = names(dtype=torch.float64)
    return space[name], [fresh[k] for k in ("model", "closure", "x", "y")]


def test_every_base_class_and_decorator_is_in_the_table_and_has_an_example():
    head = text("extend.md").split("## ")[0]
    for name in ("Estimator", "Rule", "Strength", "Engine", "Likelihood"):
        assert f"`{name}`" in head and f"({name})" in "".join(blocks("extend.md"))
    for name in ("register_layer", "register_metric"):
        assert f"`@{name}`" in head and f"@{name}(" in "".join(blocks("extend.md"))
    assert {"Term", "Dense", "Outer", "Rows"} <= set(f3eo.extend.__all__)


def test_the_estimator_is_the_dense_truth():
    kind, (model, closure, x, y) = part("Loop")
    dense = truth(model, closure, x, y)
    assert torch.allclose(fisher_trace(model, closure, x, y, estimator=kind())[1], dense.trace)
    before = flat(list(model.parameters())).detach().clone()
    F3EO(model, SGD, lr=1.0, estimator=kind(), **WHOLE).step(closure, x, y)
    update = before - flat(list(model.parameters())).detach()
    assert torch.allclose(update, dense.gradient + dense.structure)


def test_the_layer_rule_is_used_and_gives_the_dense_truth(caplog):
    source = block("extend.md", containing="class Scale(")
    with registries():
        space = names()
        exec(source, space)
        model, x, y = space["model"].double(), space["x"].double(), space["y"]

        def closure(x, y):
            return F.cross_entropy(model(x), y, reduction="none")

        caplog.clear()
        trace = fisher_trace(model, closure, x, y)[1]
        assert relative(trace, truth(model, closure, x, y).trace) < 1e-10
        assert "Scale" not in caplog.text and "fallback" not in caplog.text


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_rule_projects_only_where_h_works_against_the_loss(sign):
    from f3eo.extend import InnerProducts

    kind, _ = part("NoConflict")
    g, h = torch.tensor([2.0, 1.0]), sign * torch.tensor([1.0, 3.0])
    c = kind().shares(
        [InnerProducts(float(a * a), float(a * b), float(b * b)) for a, b in zip(g, h, strict=True)]
    )
    d = h - c[0] * g
    assert c[0] == c[1]
    assert torch.allclose(d, h) if sign > 0 else abs(float(d @ g)) < 1e-6


def test_the_metric_makes_the_subclass_step_as_its_parent():
    source = block("extend.md", containing="class MyAdam(")
    with registries():
        space = names(dtype=torch.float64)
        exec(source, space)
        ends = []
        for base in (space["MyAdam"], Adam):
            fresh = names(dtype=torch.float64)
            optimizer = F3EO(fresh["model"], base, lr=1e-2)
            for _ in range(6):
                optimizer.step(fresh["closure"], fresh["x"], fresh["y"])
            ends.append(flat(list(fresh["model"].parameters())).detach())
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-12)


def test_the_strength_is_a_cap_with_a_smooth_bound():
    kind, _ = part("SmoothCap")
    strength = kind(1.0)
    assert strength.multiplier(1e-6, 2.0, 3.0) == pytest.approx(1e-6, rel=1e-5)
    assert strength.multiplier(1e6, 2.0, 3.0) == pytest.approx(2 / 3, rel=1e-5)
    assert strength.multiplier(1.0, 2.0, 3.0) == pytest.approx(1 / (1 + 1.0 * 3 / 2))


def test_the_engine_removes_the_leading_error_of_central_differences():
    kind, (model, closure, x, y) = part("Richardson")
    h = hessian(list(model.parameters()), F.cross_entropy(model(x), y))
    expected = h @ truth(model, closure, x, y).gradient

    def error(engine):
        own = copy.deepcopy(model)
        before = flat(list(own.parameters())).detach().clone()
        optimizer = F3EO(own, SGD, lr=1.0, estimator=MiniBatch(engine), **WHOLE)
        optimizer.step(lambda x, y: F.cross_entropy(own(x), y, reduction="none"), x, y)
        update = before - flat(list(own.parameters())).detach()
        return relative(update - truth(model, closure, x, y).gradient, expected)

    assert error(kind(0.05)) < 0.1 * error(FiniteDifference(central=True, step=0.05))
    assert error(kind(0.05)) / error(kind(0.025)) > 10  # O(s⁴)


def test_the_likelihood_gives_poisson_losses_and_the_true_trace():
    kind, (model, _, x, y) = part("Poisson")
    y = y.double()

    def closure(x, y):
        return kind(model(x)[:, 0], y)

    rate = model(x)[:, 0].exp()
    assert torch.allclose(closure(x, y).losses(), -torch.distributions.Poisson(rate).log_prob(y))
    trace = fisher_trace(model, closure, x, y, estimator=ModelSampled(probes=None))[1]
    parameters = list(model.parameters())
    expected = torch.zeros((), dtype=x.dtype)
    for row in x:
        f = model(row)[0]
        gradient = flat(torch.autograd.grad(f, parameters))
        expected += f.detach().exp() * gradient.square().sum() / len(x)
    assert torch.allclose(trace, expected)
    assert closure(x, y).sample(torch.Generator().manual_seed(0)).shape == y.shape
