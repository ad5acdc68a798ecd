"""Every scalar against the dense truth in float64, beside F3EO and beside a plain optimizer."""

from itertools import pairwise
from math import ceil, isnan

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from cases import MODELS, WHOLE, Case, case
from dense import truth
from f3eo import F3EO, ByRow, Compiled, Decoupled, DoubleBackward, Fixed, PerSample, Sign, Weighted
from f3eo.monitor import Monitor
from f3eo.monitor.layers import layer_of

DENSE = dict(rel=1e-9)


def sizes(c: Case) -> list[tuple[str, int, int]]:
    """Name, first and last place of every parameter among all in a row."""
    named = [(n, p.numel()) for n, p in c.model.named_parameters() if p.requires_grad]
    ends = torch.tensor([0, *(n for _, n in named)]).cumsum(0).tolist()
    return [(n, a, b) for (n, _), (a, b) in zip(named, pairwise(ends), strict=True)]


def by_layer(c: Case, squares: Tensor) -> dict[str, float]:
    """Squares of all parameters in a row, (P,), summed over every module."""
    sums: dict[str, float] = {}
    for name, a, b in sizes(c):
        name = name.split(".parametrizations")[0] + ".weight" if "original" in name else name
        key = f"f3eo/trace/{name.rpartition('.')[0] or name}"
        sums[key] = sums.get(key, 0.0) + float(squares[a:b].sum())
    return sums


def noise_scale(g: Tensor) -> float:
    """tr Σ/‖G‖² from gradients (B, P) by deviations, not by moments."""
    mean = g.mean(0)
    noise = float((g - mean).square().sum() / (len(g) - 1))
    signal = float(mean @ mean) - noise / len(g)
    return noise / signal if signal > 0 else float("inf")


def top_tenth(squares: Tensor) -> float:
    own = squares.sort(descending=True).values
    return float(own[: ceil(len(own) / 10)].sum() / own.sum())


def first_order(c: Case, d: Tensor | float = 1.0) -> dict[str, float]:
    """What every monitor reports."""
    t = truth(c.model, c.losses, *c.batch)
    scaled = (d * t.gradients).square()
    return {
        "f3eo/loss": float(t.losses.mean()),
        "f3eo/gradient_norm": float(t.gradient.norm()),
        "f3eo/trace": float(scaled.sum(1).mean()),
        "f3eo/trace_euclidean": float(t.trace),
        **by_layer(c, scaled.mean(0)),
        "f3eo/noise_scale": noise_scale(t.gradients),
        "f3eo/memorisation/top_tenth": top_tenth(scaled.sum(1)),
    }


# Beside a plain optimizer: any module, with rules of its layers or without.


@pytest.mark.parametrize("name", [n for n in MODELS if n != "weight_norm"])
def test_beside_a_plain_optimizer_every_scalar_is_the_dense_one(name):
    c = case(name)
    monitor = Monitor(SGD(c.model.parameters(), lr=0.1), model=c.model, closure=c.losses)
    monitor.step(*c.batch)
    expected = first_order(c)
    assert monitor.last.keys() == expected.keys()
    for key, value in expected.items():
        assert monitor.last[key] == pytest.approx(value, rel=1e-8, abs=1e-14), key


def test_a_metric_beside_a_plain_optimizer():
    c = case("mlp")
    optimizer = SGD(c.model.parameters(), lr=0.1)
    monitor = Monitor(optimizer, model=c.model, closure=c.losses, metric=ByRow())
    monitor.step(*c.batch)
    assert monitor.last == pytest.approx(first_order(c, diagonal(c.model)), **DENSE)


def test_weighted_samples_beside_a_plain_optimizer():
    c, w = case("mlp"), torch.tensor([3.0, 1, 1, 2, 5, 1]).double()
    g, w1 = truth(c.model, c.losses, *c.batch).gradients, w / w.sum()
    mean, s = w1 @ g, float((w / w.sum()).square().sum())
    noise = float(w1 @ (g - mean).square().sum(1)) / (1 - s)
    closure = lambda x, y, w: Weighted(c.losses(x, y), w)  # noqa: E731
    monitor = Monitor(SGD(c.model.parameters(), lr=0.1), model=c.model, closure=closure)
    monitor.step(*c.batch, w)
    signal = float(mean @ mean) - s * noise
    expected = noise / signal if signal > 0 else float("inf")
    assert monitor.last["f3eo/noise_scale"] == pytest.approx(expected, **DENSE)
    assert monitor.last["f3eo/trace"] == pytest.approx(float(w1 @ g.square().sum(1)), **DENSE)


# Beside F3EO: the same and more, from the step itself.


def diagonal(model: nn.Module) -> Tensor:
    """D of `ByRow`, all parameters in a row."""
    rows = []
    for p in model.parameters():
        own = p.detach().flatten(1) if p.ndim > 1 else p.detach().abs()
        rows.append(own.square().mean(1, keepdim=True).sqrt().expand_as(own) if p.ndim > 1 else own)
    return torch.cat([row.flatten() for row in rows])


@pytest.mark.parametrize("relative", [False, True])
def test_beside_f3eo_every_scalar_is_the_dense_one(relative):
    """With D of the default, and without; h by differences in float64 has an error of 1e-8."""
    c = case("mlp")
    d = diagonal(c.model) if relative else 1.0
    t = truth(c.model, c.losses, *c.batch, power=1, diagonal=d)
    g, h = t.gradient, t.structure
    off = h - (h @ g) / (g @ g) * g
    expected = {
        **first_order(c, d),
        "f3eo/strength": 0.5,
        "f3eo/structure_norm": float(h.norm()),
        "f3eo/direction_norm": float(off.norm()),
        "f3eo/cosine": float(g @ h / g.norm() / h.norm()),
        "f3eo/share_off_gradient": float(off.norm() / h.norm()),
    }
    estimator = PerSample(metric=ByRow() if relative else None)
    optimizer = F3EO(
        c.model, SGD, lr=0.1, estimator=estimator, rule=Decoupled(), strength=Fixed(0.5), **WHOLE
    )
    monitor = Monitor(optimizer)
    optimizer.step(c.losses, *c.batch)
    assert monitor.last.keys() == expected.keys()
    assert monitor.last == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("how", ["chunk", "accumulate", "clipped"])
def test_chunks_and_micro_batches_give_the_same_scalars(how):
    c = case("mlp")
    expected = first_order(c)
    estimator = PerSample(DoubleBackward())
    options = WHOLE | ({"chunk": 4} if how == "chunk" else {})
    optimizer = F3EO(c.model, SGD, lr=0.1, estimator=estimator, **options)
    monitor = Monitor(optimizer, quantities=["loss", "trace_by_layer", "trace", "noise_scale"])
    if how == "chunk":
        optimizer.step(c.losses, *c.batch)
    else:
        for part in zip(*(t.split([2, 4]) for t in c.batch), strict=True):
            optimizer.accumulate(c.losses, *part)
        if how == "clipped":
            nn.utils.clip_grad_norm_(c.model.parameters(), 1e-3)
        optimizer.step()
    rel = 1e-4 if how == "clipped" else 1e-9  # torch adds 1e-6 to the norm
    assert monitor.last == pytest.approx({k: expected[k] for k in monitor.last}, rel=rel)
    assert len(monitor.last) == 6


def test_a_part_of_the_batch_and_the_gradient_of_all_of_it_give_the_noise_scale():
    """Over all parts of 3 of 6 the mean of tr Σ is that of the whole batch."""
    c = case("mlp")
    g = truth(c.model, c.losses, *c.batch).gradients
    squares, mean = g.square().sum(1), g.mean(0)
    optimizer = F3EO(c.model, SGD, lr=0.0, estimator=PerSample(), fraction=0.5, every=1)
    records = []
    optimizer.observe(records.append)
    monitor = Monitor(optimizer, every=1)
    optimizer.step(c.losses, *c.batch)
    (r,) = records
    m = float(r.norms.euclidean_trace())
    part = [
        i for i in range(6) for x in (r.norms.contributions() * 3) if abs(x - squares[i]) < 1e-9
    ]
    assert len(part) == 3 and m == pytest.approx(float(squares[part].mean()))
    noise = (m - float(mean @ mean)) * 6 / 5
    signal = float(mean @ mean) - noise / 6
    expected = noise / signal if signal > 0 else float("inf")
    assert monitor.last["f3eo/noise_scale"] == pytest.approx(expected)


def test_a_group_without_structure_and_a_frozen_layer_take_no_part():
    c = case("mlp")
    c.model[0].requires_grad_(False)
    t = truth(c.model, c.losses, *c.batch)
    middle = next(last for name, _, last in sizes(c) if name == "2.bias")
    groups = [
        {"params": c.model[:3].parameters()},
        {"params": c.model[4].parameters(), "structure": False},
    ]
    estimator = PerSample(DoubleBackward())
    optimizer = F3EO(groups, SGD, lr=0.1, estimator=estimator, **WHOLE)
    monitor = Monitor(optimizer)
    optimizer.step(c.losses, *c.batch)
    g = t.gradients[:, :middle]
    assert monitor.last["f3eo/trace"] == pytest.approx(float(g.square().sum(1).mean()))
    assert monitor.last["f3eo/gradient_norm"] == pytest.approx(float(t.gradient.norm()))
    assert monitor.last["f3eo/noise_scale"] == pytest.approx(noise_scale(g))
    layers = {k: v for k, v in monitor.last.items() if k.startswith("f3eo/trace/")}
    assert layers.keys() == {"f3eo/trace/0", "f3eo/trace/1"}  # positions: groups have no names


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"fraction": 0.5}])
def test_a_compiled_measurement_gives_the_scalars_of_the_estimator(options, weighted):
    """The third one is the first that is run from the recording alone."""
    found, w = [], torch.arange(1.0, 7).double()
    for make in (PerSample, lambda: Compiled(backend=None)):
        c = case("mlp")
        closure = (lambda x, y, w, c=c: Weighted(c.losses(x, y), w)) if weighted else c.losses
        batch = (*c.batch, w) if weighted else c.batch
        generator = torch.Generator().manual_seed(1)
        own = {**WHOLE, **options, "generator": generator, "estimator": make()}
        optimizer = F3EO(c.model, SGD, lr=0.1, **own)
        monitor = Monitor(optimizer, every=1)
        for _ in range(4):
            optimizer.step(closure, *batch)
        found.append(monitor.last)
    assert "f3eo/trace/0" in found[0]
    assert ("f3eo/noise_scale" in found[0]) == (not weighted or not options)
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_an_estimator_without_norms_gives_the_rest():
    c = case("mlp")
    optimizer = F3EO(c.model, SGD, lr=0.1, estimator=Sign(), **WHOLE)
    monitor = Monitor(optimizer, every=1)
    for _ in range(3):
        optimizer.step(c.losses, *c.batch)
    assert {"f3eo/trace", "f3eo/cosine", "f3eo/strength"} <= monitor.last.keys()
    assert "f3eo/noise_scale" not in monitor.last and "f3eo/trace_euclidean" not in monitor.last


def test_a_cosine_with_nothing_is_nan_and_a_step_without_h_has_none():
    model = nn.Linear(2, 1, bias=False).double()
    x = torch.ones(4, 2).double()
    found = []
    for value in (1.0, 0.0):
        optimizer = F3EO(model, SGD, lr=0.0, estimator=PerSample(), strength=Fixed(value), every=1)
        monitor = Monitor(optimizer, every=1)
        optimizer.step(lambda x: model(x).squeeze(1), x)  # linear: h is 0
        found.append(monitor.last)
    assert isnan(found[0]["f3eo/cosine"]) and isnan(found[0]["f3eo/share_off_gradient"])
    assert found[1].keys() == {"f3eo/loss", "f3eo/gradient_norm"}


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("blocks.0.attention.weight", "blocks.0.attention"),
        ("weight", "weight"),
        ("blocks.0.parametrizations.weight.original0", "blocks.0"),
        ("parametrizations.weight.original0", "weight"),
        ("_orig_mod.0.weight", "0"),
    ],
)
def test_the_layer_of_a_parameter(name, layer):
    assert layer_of(name) == layer
