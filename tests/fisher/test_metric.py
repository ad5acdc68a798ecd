"""The trace in a metric, against the loop over samples and under scalings of layers."""

import copy
import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cases import MODELS, case
from dense import truth
from f3eo import (
    F3EO,
    ByRow,
    Cap,
    DoubleBackward,
    Elementwise,
    Euclidean,
    Factored,
    FiniteDifference,
    PerSample,
    fisher_trace,
)
from f3eo.closure.problem import Problem
from f3eo.fisher.metric import length

ENGINES = [(DoubleBackward(), 1e-10), (FiniteDifference(), 2e-5)]
METRICS = [
    *(Elementwise(), ByRow(), Factored(), ByRow(vectors=1.0)),
    *(Factored(vectors=0.0), Elementwise(vectors=0.5)),
]


def dense(metric: object, p: Tensor) -> Tensor:
    """D of one parameter, element by element, from the definition."""
    p, d = p.detach(), torch.empty_like(p)
    if p.ndim < 2:
        return p.abs() if metric.vectors is None else torch.full_like(p, metric.vectors)
    for k in range(len(p)):
        for j, _ in enumerate(p[k].flatten()):
            row, column = p[k].square().mean(), p.flatten(1)[:, j].square().mean()
            d.flatten(1)[k, j] = {
                Elementwise: p[k].flatten()[j].abs(),
                ByRow: row.sqrt(),
                Factored: (row * column / p.square().mean()).sqrt(),
            }[type(metric)]
    return d


def problem_of(name: str) -> Problem:
    row = case(name)
    torch.manual_seed(1)
    for p in row.model.parameters():  # no zero biases: their D would be zero
        p.data.add_(0.1 * torch.randn_like(p))
    parameters = [p for p in row.model.parameters() if p.requires_grad]
    return Problem(row.losses, row.batch, parameters, [True] * len(parameters), row.model)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("engine", "tolerance"), ENGINES, ids=["twice", "differences"])
@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_trace_and_structure_gradient_are_the_loop_s(name, metric, engine, tolerance, caplog):
    problem = problem_of(name)
    caplog.set_level(logging.INFO, logger="f3eo")
    for power in (1.0, 2.0):
        found = PerSample(engine, metric=metric, power=power).gradients(problem)
        fell_back = [r.message for r in caplog.records if "instead of finite diff" in r.message]
        assert not fell_back or name == "sequence_first"
        diagonal = torch.cat([dense(metric, p).flatten() for p in problem.parameters])
        expected = truth(
            problem.parameters, problem.closure, *problem.batch, power=power, diagonal=diagonal
        )
        trace = (diagonal * expected.gradients).square().sum(1).mean()
        h = torch.cat([t.flatten() for t in found.structure])
        gradient = torch.cat([t.flatten() for t in found.gradient])
        assert (h - expected.structure).norm() <= tolerance * expected.structure.norm()
        assert torch.allclose(found.trace, trace, rtol=1e-10)
        assert torch.allclose(gradient, expected.gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("metric", METRICS[:3], ids=repr)
@pytest.mark.parametrize("differentiable", [True, False])
def test_fisher_trace_takes_the_metric(name, metric, differentiable):
    problem = problem_of(name)
    estimator = PerSample(metric=metric)
    _, trace = estimator.trace(problem, differentiable=differentiable)
    diagonal = torch.cat([dense(metric, p).flatten() for p in problem.parameters])
    gradients = truth(problem.parameters, problem.closure, *problem.batch).gradients
    assert torch.allclose(trace, (diagonal * gradients).square().sum(1).mean(), rtol=1e-10)


def pair(scale: float) -> tuple[nn.Module, nn.Module]:
    """A network, and the same function with one layer times `scale` and the next one over it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    model = model.double()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight *= scale
        other[0].bias *= scale
        other[2].weight /= scale
    return model, other


def unit_pair() -> tuple[nn.Module, nn.Module]:
    """As `pair`, every hidden unit with a scale of its own."""
    model, other = pair(1.0)
    scales = torch.tensor([0.2, 3.0, 1.5, 0.7, 8.0, 1.0], dtype=torch.float64)
    with torch.no_grad():
        other[0].weight *= scales[:, None]
        other[0].bias *= scales
        other[2].weight /= scales
    return model, other


DRAWN = torch.Generator().manual_seed(1)
BATCH = (
    torch.randn(7, 4, dtype=torch.float64, generator=DRAWN),
    torch.randint(3, (7,), generator=DRAWN),
)


def trace_of(model: nn.Module, metric: object) -> Tensor:
    def closure(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

    return fisher_trace(model, closure, *BATCH, estimator=PerSample(metric=metric))[1]


@pytest.mark.parametrize("metric", METRICS[:3], ids=repr)
def test_scaled_layers_have_the_same_trace(metric):
    model, other = pair(5.0)
    assert torch.allclose(model(BATCH[0]), other(BATCH[0]))
    assert torch.allclose(trace_of(model, metric), trace_of(other, metric), rtol=1e-10)
    euclidean = trace_of(model, Euclidean()), trace_of(other, Euclidean())
    assert euclidean[1] > 2 * euclidean[0]


def test_scaled_units_have_the_same_trace_elementwise():
    model, other = unit_pair()
    traces = trace_of(model, Elementwise()), trace_of(other, Elementwise())
    assert torch.allclose(*traces, rtol=1e-10)
    assert not torch.allclose(trace_of(model, ByRow()), trace_of(other, ByRow()), rtol=1e-2)


@pytest.mark.parametrize("metric", METRICS[:3], ids=repr)
def test_scaled_layers_train_alike(metric):
    """With rates in the same units, lr c² where parameters are c times as large."""
    scale, functions = 3.0, []
    for model, factors in zip(pair(scale), ((1, 1, 1), (scale, 1 / scale, 1)), strict=True):
        groups = []
        for index, factor in zip((0, 2, 4), factors, strict=True):
            groups.append({"params": [model[index].weight], "lr": 0.05 * factor**2})
            shared = factor if index == 0 else 1.0  # the second layer's bias stays as it is
            groups.append({"params": [model[index].bias], "lr": 0.05 * shared**2})
        base = torch.optim.SGD(groups, lr=0.05)
        estimator = PerSample(FiniteDifference(central=True), metric=metric, power=2)
        optimizer = F3EO(
            [p for g in groups for p in g["params"]],
            base,
            estimator=estimator,
            strength=Cap(0.5),
            fraction=1,
            every=1,
        )

        def closure(x: Tensor, y: Tensor, model: nn.Module = model) -> Tensor:
            return F.cross_entropy(model(x), y, reduction="none")

        for _ in range(20):
            optimizer.step(closure, *BATCH)
        functions.append(model(BATCH[0]).detach())
    assert torch.allclose(*functions, rtol=1e-5, atol=1e-6)


def test_rows_without_weights_carry_no_noise():
    """A layer that starts at zero, such as the second of LoRA, has D = 0 and a finite h."""
    model, _ = pair(1.0)
    nn.init.zeros_(model[2].weight)

    def closure(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

    problem = Problem(closure, BATCH, list(model.parameters()), [True] * 6, model)
    for metric in METRICS[:3]:
        found = PerSample(metric=metric).gradients(problem)
        assert all(bool(h.isfinite().all()) for h in found.structure)
        diagonal = torch.cat([dense(metric, p).flatten().nan_to_num() for p in model.parameters()])
        expected = truth(model, closure, *BATCH, power=1, diagonal=diagonal).structure
        h = torch.cat([t.flatten() for t in found.structure])
        assert (h - expected).norm() <= 2e-5 * expected.norm()


@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_the_length_of_the_parameters_is_in_their_units(metric):
    """‖θ/D‖; what has D = 0, such as a row of zeros, does not count."""
    parameters = problem_of("cnn").parameters
    parameters[0].data[1] = 0
    squared = 0.0
    for p in parameters:
        d = dense(metric, p).nan_to_num()
        squared += (p.detach()[d > 0] / d[d > 0]).square().sum()
    found = length(parameters, metric.of(parameters))
    assert torch.allclose(found, squared.sqrt(), rtol=1e-10)


@pytest.mark.parametrize("vectors", [-1.0, float("nan"), float("inf")])
def test_a_bad_number_is_refused(vectors):
    with pytest.raises(ValueError, match=f"vectors=None .* received {vectors}"):
        ByRow(vectors=vectors)


def test_what_is_no_metric_is_refused():
    with pytest.raises(TypeError, match=r"Euclidean\(\), ByRow\(\).* received 'rows'"):
        PerSample(metric="rows")
