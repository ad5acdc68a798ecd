"""What docs/choose.md says of defaults, formulas, refusals and checks."""

import logging
from math import exp

import pytest
import torch
import torch.nn.functional as F
from heavyball import SOAP
from pytorch_optimizer import SAM, Lookahead
from torch import nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, Adamax, AdamW, Muon, NAdam, RAdam, RMSprop

from dense import flat, truth
from docs.pages import block, names, prose, run, table
from f3eo import (
    F3EO,
    Cap,
    Compiled,
    Coupled,
    Decoupled,
    DoubleBackward,
    FiniteDifference,
    Fitted,
    Fixed,
    Gaussian,
    MiniBatch,
    ModelSampled,
    PerSample,
    Ratio,
    Sign,
    Warmup,
    fisher_trace,
)
from f3eo.extend import DecoupledPerTensor, Direct

EXACT = {"estimator": PerSample(DoubleBackward()), "fraction": 1, "every": 1}


def displacement(**options):
    """A step of −(update) at learning rate 1, in a row, and what dense autograd gives for it."""
    space = names(dtype=torch.float64)
    model, closure, x, y = (space[name] for name in ("model", "closure", "x", "y"))
    dense = truth(model, closure, x, y, power=1)
    sizes = [p.numel() for p in model.parameters()]
    before = flat(list(model.parameters())).detach().clone()
    F3EO(model, SGD, lr=1.0, **EXACT | options).step(closure, x, y)
    return before - flat(list(model.parameters())).detach(), dense, sizes


def projected(h, g):
    return h - (h @ g) / (g @ g) * g


def test_the_update_of_every_rule_is_its_formula():
    for rule, direction in {
        Decoupled(): lambda g, h, sizes: g + 0.1 * projected(h, g),
        Coupled(): lambda g, h, sizes: g + 0.1 * h,
        Direct(): lambda g, h, sizes: 0.1 * h,
        DecoupledPerTensor(): lambda g, h, sizes: (
            g
            + 0.1
            * torch.cat(
                [projected(a, b) for a, b in zip(h.split(sizes), g.split(sizes), strict=True)]
            )
        ),
    }.items():
        update, dense, sizes = displacement(rule=rule, strength=Fixed(0.1))
        assert torch.allclose(update, direction(dense.gradient, dense.structure, sizes)), rule
    rows = [row[0] for row in table("choose.md", "rule")]
    assert rows == [
        "`Decoupled()`",
        "`Coupled()`",
        "`f3eo.extend.DecoupledPerTensor()`",
        "`f3eo.extend.Direct()`",
    ]


STRENGTHS = {
    "min(v·e^(−L), ‖g‖/‖d‖)": (Fitted, lambda v, bound, loss: min(v * exp(-loss), bound)),
    "min(v, ‖g‖/‖d‖)": (Cap, lambda v, bound, loss: min(v, bound)),
    "v": (Fixed, lambda v, bound, loss: v),
    "κ‖g‖/‖d‖": (Ratio, lambda v, bound, loss: v * bound),
}


@pytest.mark.parametrize("value", [0.04, 30.0])
@pytest.mark.parametrize("formula", STRENGTHS)
def test_every_strength_is_its_formula(formula, value):
    kind, strength = STRENGTHS[formula]
    update, dense, _ = displacement(strength=kind(value))
    d = projected(dense.structure, dense.gradient)
    bound = float(dense.gradient.norm() / d.norm())
    found = float((update - dense.gradient) @ d / (d @ d))
    assert found == pytest.approx(strength(value, bound, float(dense.losses.mean())))
    shown = {row[0].split("(")[0].strip("`"): row[1] for row in table("choose.md", "strength")}
    assert shown[kind.__name__] == formula


def test_a_schedule_is_a_factor_of_the_step():
    assert [Ratio(0.3, Warmup(500)).schedule(k) for k in (0, 249, 499, 9999)] == [
        *(0.002, 0.5, 1.0, 1.0)
    ]


def test_the_power_and_the_engine_of_every_estimator():
    assert PerSample().power == Compiled().power == 1
    assert PerSample(power=2).power == 2
    assert {e.power for e in (ModelSampled(), Sign(), MiniBatch())} == {2}
    assert "2 the trace. The other estimators have power 2" in prose("choose.md")
    plain = PerSample()
    assert repr(plain.metric) == "Euclidean()" and repr(plain.emphasis) == "Uniform()"
    assert not plain.hold_residuals
    assert repr(PerSample().engine) == "FiniteDifference()"
    assert {repr(e.engine) for e in (MiniBatch(), Sign())} == {"DoubleBackward()"}


def test_what_engines_cost_in_forward_passes():
    said = prose("choose.md")
    assert "a second pass, 3 forward passes" in said
    assert "4 forward passes in `PerSample`, 6 elsewhere" in said
    assert PerSample(FiniteDifference()).forwards == 3 + 3
    assert PerSample(DoubleBackward()).forwards == 3 + 4
    assert MiniBatch(FiniteDifference()).forwards == Sign(FiniteDifference()).forwards == 3 + 3
    assert MiniBatch(DoubleBackward()).forwards == Sign(DoubleBackward()).forwards == 3 + 6


@pytest.mark.parametrize("base", [SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad])
def test_the_bases_in_the_table_have_a_known_metric(base):
    F3EO(nn.Linear(2, 2), base, lr=0.01)  # a warning would be an error
    rows = table("choose.md", "base")
    assert any(base.__name__ in row[0] for row in rows[:2])


@pytest.mark.parametrize("base", [Muon, SOAP])
def test_other_bases_are_told_once(base):
    with pytest.warns(UserWarning, match="knows no metric of"):
        F3EO([nn.Parameter(torch.randn(2, 2))], base, lr=0.01)
    assert "any other (Muon, SOAP, …)" in prose("choose.md")


def test_wrappers_are_bases_and_optimizers_that_evaluate_the_loss_are_refused():
    model = nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="knows no metric of Lookahead"):
        F3EO(model, Lookahead(SGD(model.parameters(), lr=0.1)))
    with pytest.raises(TypeError, match=r"SAM .*cannot be a base"):
        F3EO(model, lambda p, **_: SAM(p, SGD, lr=0.1))
    with pytest.raises(TypeError, match=r"LBFGS .*cannot be a base"):
        F3EO(model, LBFGS)


class Seen:
    """A closure that remembers how many samples each call had."""

    def __init__(self, model):
        self.model, self.sizes = model, []

    def __call__(self, x, y):
        self.sizes.append(len(x))
        return F.cross_entropy(self.model(x), y, reduction="none")


def batch(count=16):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return model, torch.randn(count, 4), torch.arange(count) % 3


def test_h_is_measured_on_a_quarter_of_the_batch_at_every_fifth_step():
    model, x, y = batch()
    closure, calls = Seen(model), []
    optimizer = F3EO(model, SGD, lr=0.01)
    for _ in range(11):
        closure.sizes.clear()
        optimizer.step(closure, x, y)
        calls.append(list(closure.sizes))
    measured = [i for i, sizes in enumerate(calls) if sizes != [16]]
    assert measured == [0, 5, 10]
    assert sorted(calls[5]) == [4, 4, 12]  # both passes of the quarter, and the rest once


def test_the_first_the_4th_and_the_16th_measurement_are_checked():
    model, x, y = batch(4)
    closure, calls = Seen(model), []
    optimizer = F3EO(model, SGD, lr=0.01, fraction=1, every=1)
    for _ in range(17):
        closure.sizes.clear()
        optimizer.step(closure, x, y)
        calls.append(len(closure.sizes))
    assert [i for i, n in enumerate(calls, 1) if n > min(calls)] == [1, 4, 16]
    assert "The first measurement, and the 4th, 16th, 64th, …" in prose("choose.md")


def test_a_chunk_bounds_the_samples_of_a_pass():
    model, x, y = batch()
    closure = Seen(model)
    F3EO(model, SGD, lr=0.01, chunk=4).step(closure, x, y)
    assert max(closure.sizes) == 4


def test_groups_without_structure_are_trained_on_the_loss_alone():
    run(block("choose.md", containing='"structure": False'))
    space = names(dtype=torch.float64)
    model, head = space["model"], space["head"]
    groups = [{"params": space["body"]}, {"params": head, "structure": False}]
    before = [p.detach().clone() for p in head]
    loss = space["closure"](space["x"], space["y"]).mean()
    expected = torch.autograd.grad(loss, head)
    F3EO(groups, SGD, lr=1.0).step(space["closure"], space["x"], space["y"])
    for p, start, g in zip(head, before, expected, strict=True):
        assert torch.allclose(p, start - g)
    assert model is not None


def test_a_step_that_is_not_finite_is_skipped_with_a_warning_or_raises():
    model, x, y = batch()
    x[0, 0] = torch.nan
    optimizer = F3EO(model, SGD, lr=0.01)
    with pytest.warns(UserWarning, match="is not finite"):
        optimizer.step(Seen(model), x, y)
    assert optimizer.skipped == 1
    with pytest.raises(FloatingPointError):
        F3EO(model, SGD, lr=0.01, on_nonfinite="raise").step(Seen(model), x, y)


def coupled(model):
    """Every loss is divided by something of the batch."""
    return lambda x, y: F.cross_entropy(model(x), y, reduction="none") / x.norm()


def test_coupled_samples_are_taken_whole_and_refused_in_parts(caplog):
    caplog.set_level(logging.INFO, "f3eo")
    model, x, y = batch()
    F3EO(model, SGD, lr=0.01).step(coupled(model), x, y)
    assert "on the whole batch" in caplog.text
    for options in ({"fraction": 0.5}, {"chunk": 4}):
        with pytest.raises(ValueError, match="couples its samples"):
            F3EO(model, SGD, lr=0.01, **options).step(coupled(model), x, y)
    optimizer, closure = F3EO(model, SGD, lr=0.01), coupled(model)
    optimizer.accumulate(closure, x, y)
    with pytest.raises(ValueError, match="couples its samples"):
        optimizer.accumulate(closure, x, y)


def test_hooks_on_gradients_of_parameters_are_refused():
    model, x, y = batch()
    model[0].weight.register_hook(lambda g: g)
    with pytest.raises((RuntimeError, ValueError), match="hook"):
        F3EO(model, SGD, lr=0.01).step(Seen(model), x, y)


def test_losses_that_are_not_in_nats_and_ignored_labels_are_told_once():
    model, x, y = batch()
    optimizer = F3EO(model, SGD, lr=0.01, strength=Fitted(0.04))
    with pytest.warns(UserWarning, match=r"squared errors.*use strength=Cap"):
        optimizer.step(lambda x, y: (model(x)[:, 0] - y).square(), x, y)
    optimizer.step(lambda x, y: (model(x)[:, 0] - y).square(), x, y)
    y[0] = -100
    with pytest.warns(UserWarning, match="labels are ignored"):
        F3EO(model, SGD, lr=0.01).step(Seen(model), x, y)


def test_batch_norm_is_refused_with_three_alternatives_that_work():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
    _, x, y = batch()
    optimizer = F3EO(model, SGD, lr=0.01)
    with pytest.raises(ValueError, match=r"GroupNorm|MiniBatch\(\)|\.eval\(\)") as refused:
        optimizer.step(Seen(model), x, y)
    for cure in ("GroupNorm", "MiniBatch()", ".eval()"):
        assert cure in str(refused.value) and cure in prose("choose.md")
    F3EO(model, SGD, lr=0.01, estimator=MiniBatch()).step(Seen(model), x, y)
    model[1].eval()
    optimizer.step(Seen(model), x, y)
    model.train()
    with pytest.raises(ValueError, match="GroupNorm"):
        for _ in range(5):
            optimizer.step(Seen(model), x, y)
    assert optimizer.steps == 5 and "the next measurement of h is refused" in prose("choose.md")


def test_loss_scaling_complex_and_sparse_parameters_are_refused():
    model, x, y = batch()
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(Seen(model)(x, y).mean()).backward()
    with pytest.raises(RuntimeError, match="GradScaler"):
        scaler.step(F3EO(model, SGD, lr=0.01))
    with pytest.raises(ValueError, match="complex"):
        F3EO([nn.Parameter(torch.randn(2, dtype=torch.complex64))], SGD, lr=0.01)
    with pytest.raises(ValueError, match="sparse"):
        F3EO(nn.Embedding(3, 2, sparse=True), SGD, lr=0.01)


def test_a_relu_network_with_a_linear_loss_has_no_curvature_inside_a_piece():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU()).double()  # one layer: no product of layers
    x = torch.randn(6, 4, dtype=torch.float64)
    start = flat(list(model.parameters())).detach().clone()
    g = flat(torch.autograd.grad(model(x).sum(1).mean(), list(model.parameters())))
    optimizer = F3EO(model, SGD, lr=1.0, rule=Coupled(), strength=Fixed(1.0), fraction=1)
    optimizer.step(lambda x: model(x).sum(1), x)
    assert torch.allclose(flat(list(model.parameters())), start - g, atol=1e-7)


def test_gaussian_is_the_likelihood_for_regression():
    model, x, _ = batch()
    y = torch.randn(16, 3)
    losses, trace = fisher_trace(model, lambda x, y: Gaussian(model(x), y, 0.5), x, y)
    normal = torch.distributions.Normal(model(x), 0.5)
    assert torch.allclose(losses, -normal.log_prob(y).mean(1), atol=1e-6)
    dense = truth(model, lambda x, y: 2 * (model(x) - y).square().mean(1), x, y)
    assert torch.allclose(trace, dense.trace, rtol=1e-4)
