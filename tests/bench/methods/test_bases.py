"""Bases that are wrapped, and what F3EO and SAM make of them."""

import copy

import pytest
import pytorch_optimizer
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Muon

from cases import WHOLE
from f3eo import (
    F3EO,
    Cap,
    Compiled,
    Coupled,
    Factored,
    FiniteDifference,
    Fitted,
    Fixed,
    MiniBatch,
    PerSample,
)
from f3eo.bench.methods import METHODS, bases
from f3eo.bench.methods.bases import BASES
from f3eo.bench.methods.f3eo import ESTIMATORS, METRICS, RESIDUALS, RULES, STRENGTHS

pytestmark = pytest.mark.filterwarnings("ignore:F3EO knows no metric")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.SiLU(), nn.Linear(8, 3))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16, 5, generator=generator)
    return x, torch.randint(3, (16,), generator=generator)


def losses_of(model):
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none")


def stepped(model, method, batch, steps=1, **options):
    """The flat weights of a copy after steps of a method."""
    model = copy.deepcopy(model)
    stepper, closure = built(model, method, options), losses_of(model)
    for _ in range(steps):
        stepper.step(closure, *batch)
    return flat(model)


def built(model, method, options):
    """F3EO uncompiled, unless something else is said: compiling takes longer than these steps."""
    quick = {"estimator": "per_sample"} if method == "f3eo" else {}
    return METHODS[method].build(model, METHODS[method].options(quick, options), 0)


def flat(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


SUPPORTED = torch.ops.mkldnn, "_is_mkldnn_bf16_supported"


def test_muon_steps_as_torchs_beside_adamw(model, batch, monkeypatch):
    monkeypatch.setattr(*SUPPORTED, lambda: True)  # torch's iterates in bfloat16 everywhere
    options = {"lr": 0.01, "weight_decay": 0.1}
    ours = stepped(model, "muon", batch, steps=3, **options)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    muon = Muon(matrices, momentum=0.95, adjust_lr_fn="match_rms_adamw", **options)
    adamw, before = AdamW(rest, **options), flat(model)
    for _ in range(3):
        model.zero_grad()
        losses_of(model)(*batch).mean().backward()
        muon.step()
        adamw.step()
    assert (ours - flat(model)).norm() < 2e-3 * (ours - before).norm()


@pytest.mark.parametrize("shapes", [[(6, 9)], [(6, 9), (9, 6)], [(4, 3, 2, 2), (4, 12)]])
def test_muon_iterates_in_float32_where_the_processor_has_no_bfloat16(shapes, monkeypatch):
    """As the package's own to the rounding of bfloat16, and nearer to the iteration in float64."""
    updates = [torch.randn(s, generator=torch.Generator().manual_seed(3)) for s in shapes]
    group = bases.Muon(BASES["muon"].groups(nn.Linear(2, 2, bias=False))).param_groups[0]
    theirs = pytorch_optimizer.Muon._orthogonalize(group, updates)
    monkeypatch.setattr(*SUPPORTED, lambda: True)
    same = bases.Muon._orthogonalize(group, updates)
    assert all(map(torch.equal, same, theirs))
    monkeypatch.setattr(*SUPPORTED, lambda: False)
    ours = bases.Muon._orthogonalize(group, updates)
    for update, mine, other in zip(updates, ours, theirs, strict=True):
        x = update.flatten(1).double()
        x = x / x.norm()
        for _ in range(5):
            a = x @ x.mT
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        assert mine.dtype == torch.float32 and (mine - x).norm() < 1e-5 * x.norm()
        assert (mine - other).norm() < 0.05 * x.norm()


def test_muon_takes_kernels_and_leaves_vectors_and_embeddings_to_adamw():
    table, kernel, head = nn.Embedding(7, 4), nn.Conv1d(4, 4, 3), nn.Linear(4, 7, bias=False)
    head.weight = table.weight  # tied: an embedding still
    found = {
        g["use_muon"]: g["params"] for g in BASES["muon"].groups(nn.Sequential(table, kernel, head))
    }
    assert [id(p) for p in found[True]] == [id(kernel.weight)]
    assert {id(p) for p in found[False]} == {id(table.weight), id(kernel.bias)}
    assert [g["use_muon"] for g in BASES["muon"].groups(nn.Linear(2, 2, bias=False))] == [True]


def test_momentum_is_the_first_beta_of_adamw():
    assert BASES["adamw"].arguments(1.0, 2.0, 0.8)["betas"] == (0.8, 0.999)


@pytest.mark.parametrize("method", ["f3eo", "sam"])
@pytest.mark.parametrize("base", ["sgd", "adamw", "muon"])
def test_without_a_perturbation_the_wrapped_step_is_the_bases(model, batch, method, base):
    none = {"value": 0.0} if method == "f3eo" else {"rho": 0.0}
    options = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.95}
    ours = stepped(model, method, batch, steps=3, base=base, **none, **options)
    if base == "adamw":
        options["betas"] = (options.pop("momentum"), 0.999)
        kind = AdamW(model.parameters(), **options)
        for _ in range(3):
            model.zero_grad()
            losses_of(model)(*batch).mean().backward()
            kind.step()
        expected = flat(model)
    else:
        expected = stepped(model, base, batch, steps=3, **options)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["f3eo", "sam"])
@pytest.mark.parametrize("base", ["sgd", "adamw", "muon"])
def test_every_base_descends_with_one_schedule_for_all_parameters(model, batch, method, base):
    stepper, closure = built(model, method, {"base": base, "lr": 0.02}), losses_of(model)
    before = closure(*batch).mean()
    for _ in range(40):
        stepper.step(closure, *batch)
    assert losses_of(model)(*batch).mean() < 0.8 * before
    (optimizer,) = stepper.optimizers
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    still = flat(model)
    stepper.step(losses_of(model), *batch)
    torch.testing.assert_close(flat(model), still, rtol=0, atol=1e-6)


PARTS = [
    *({"estimator": name} for name in ESTIMATORS if not name.startswith("compiled")),
    {"estimator": "exact", "power": 2.0},
    *({"rule": name} for name in RULES),
    *({"strength": name} for name in STRENGTHS),
    *({"metric": name} for name in METRICS),
    *({"residuals": name} for name in RESIDUALS),
    {"strength": "cap", "limit": 0.01},
    {"every": 2},
    {"fraction": 0.25},
    {"base": "adamw"},
    {"base": "muon"},
]
DEFAULT = {
    "estimator": "per_sample",
    "metric": "rows",
    "residuals": "held",
    "rule": "decoupled",
    "strength": "ratio",
    "fraction": 1.0,
    "every": 1,
}


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_every_part_of_f3eo_is_reached_by_name(model, batch, part):
    plain = stepped(model, "f3eo", batch, steps=2, **DEFAULT)
    other = stepped(model, "f3eo", batch, steps=2, **(DEFAULT | part))
    if part.items() <= DEFAULT.items():
        assert torch.equal(plain, other)
    elif part == {"estimator": "exact"}:
        torch.testing.assert_close(plain, other, rtol=1e-3, atol=1e-4)
        assert not torch.equal(plain, other)
    else:
        assert (plain - other).norm() > 1e-3 * (plain - flat(model)).norm()


@pytest.mark.parametrize("name", ["per_sample", "exact"])
def test_a_compiled_estimator_is_that_estimator_compiled(name):
    parts = {"power": 1.5, "metric": Factored(), "hold_residuals": True}
    plain = ESTIMATORS[name](**parts)
    compiled = ESTIMATORS["compiled" if name == "per_sample" else f"compiled_{name}"](**parts)
    assert isinstance(compiled, Compiled)
    assert repr(compiled.estimator) == repr(plain)
    assert "power=1.5" in repr(plain) and "metric=Factored()" in repr(plain)


OBJECTS = {
    "batch": (
        {"estimator": "batch", "rule": "coupled", "strength": "fixed", "value": 0.7},
        {
            "estimator": MiniBatch(FiniteDifference()),
            "rule": Coupled(),
            "strength": Fixed(0.7),
        },
    ),
    "per sample": (
        {"metric": "factored", "residuals": "free", "strength": "cap", "value": 9, "limit": 0.2},
        {"estimator": PerSample(metric=Factored()), "strength": Cap(9, limit=0.2)},
    ),
    "every 2": (
        {"metric": "euclidean", "strength": "fitted", "value": 0.5, "limit": 7, "every": 2},
        {
            "estimator": PerSample(hold_residuals=True),
            "strength": Fitted(0.5, limit=7),
            "every": 2,
        },
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_the_data_says_what_the_object_is(model, batch, name):
    data, parts = OBJECTS[name]
    ours = stepped(model, "f3eo", batch, steps=3, lr=0.1, **WHOLE | data)
    rest = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    optimizer = F3EO(model, SGD, **WHOLE | parts | rest)
    for _ in range(3):
        optimizer.step(losses_of(model), *batch)
    assert torch.equal(ours, flat(model))


def test_the_defaults_are_those_of_the_library(model):
    method = METHODS["f3eo"]
    ours = method.build(model, method.options(), 0).optimizers[0]
    theirs = F3EO(model, SGD, lr=0.1)
    assert repr(ours.strength) == "Sensitivity(rest=0)"  # a step has a price before the run
    assert repr(theirs.strength) == "Sensitivity()" and ours.every == theirs.every
    assert type(ours.rule) is type(theirs.rule) and method.defaults["fraction"] == 0.25
    for part in ("metric", "engine"):
        of = [type(getattr(o.estimator, part)) for o in (ours, theirs)]
        assert of[0] is of[1]
    assert ours.estimator.hold_residuals == theirs.estimator.hold_residuals
    assert ours.estimator.power == theirs.estimator.power


def test_drawn_labels_want_cross_entropy(model, batch):
    options = METHODS["f3eo"].options({"estimator": "model_sampled"})
    stepper = METHODS["f3eo"].build(model, options, 0)
    with pytest.raises(ValueError, match="whose loss is cross-entropy"):
        stepper.step(lambda x, y: 2 * losses_of(model)(x, y), *batch)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"base": "lion"}, "unknown base 'lion'; choose from sgd, adamw, muon"),
        ({"estimator": "x"}, "unknown estimator 'x'; choose from per_sample, exact, compiled"),
        ({"rule": "x"}, "unknown rule 'x'; choose from decoupled"),
        ({"strength": "x"}, "unknown strength 'x'; choose from ratio, fixed, cap, fitted"),
        ({"estimator": "batch"}, "fraction=0.25 needs an estimator that is a mean over samples"),
    ],
)
def test_unknown_parts_are_refused_with_the_known(model, options, message):
    with pytest.raises(ValueError, match=message):
        METHODS["f3eo"].build(model, METHODS["f3eo"].options(options), 0)
