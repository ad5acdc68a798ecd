"""Weights of samples and positions, against a loop over single samples in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim

from dense import flat, relative
from f3eo import (
    F3EO,
    Categorical,
    Compiled,
    Coupled,
    DoubleBackward,
    FiniteDifference,
    Fixed,
    MiniBatch,
    ModelSampled,
    PerSample,
    Sign,
    Weighted,
    fisher_trace,
)
from f3eo.closure.problem import Problem
from f3eo.second_order import GaussNewton, NewtonCG

IGNORED = -100


def tokens(seed=0, count=6, positions=5):
    """A model of tokens, with sequences of 1 to `positions` kept labels and one of none."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(9, 6), nn.Tanh(), nn.Linear(6, 9)).double()
    x = torch.randint(9, (count, positions))
    y = torch.randint(9, (count, positions))
    for i in range(count):
        y[i, i % (positions + 1) :] = IGNORED  # the first sample keeps none
    return model, x, y.roll(2, 0)


def weighted(model):
    """Kept tokens by hand, with class weights: what the labels count."""
    scale = torch.linspace(0.2, 3, 9, dtype=torch.float64)

    def closure(x, y):
        kept = (y != IGNORED) * scale[y.clamp(min=0)]
        return Weighted(F.cross_entropy(model(x).movedim(-1, 1), y, reduction="none"), kept)

    return closure, lambda y: (y != IGNORED) * scale[y.clamp(min=0)]


def categorical(model):
    def closure(x, y):
        return Categorical(model(x), y, per_token=True)

    return closure, lambda y: (y != IGNORED).double()


def by_sample(model):
    """Weights of whole samples, positions averaged."""

    def closure(x, y):
        losses = F.cross_entropy(model(x).movedim(-1, 1), y.clamp(min=0), reduction="none")
        return Weighted(losses, (y == IGNORED).sum(1))

    return closure, lambda y: (y == IGNORED).double().mean(1, keepdim=True).expand(y.shape)


KINDS = {"weighted": weighted, "categorical": categorical, "by sample": by_sample}


def loop(model, x, y, weights, power):
    """L, ∇L, trace and h from one forward pass for every sample."""
    parameters = list(model.parameters())
    total = weights.sum()
    loss, trace = 0.0, 0.0
    gradient = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    structure = torch.zeros_like(gradient)
    for i in range(len(x)):
        w = weights[i].sum()
        if w == 0:
            continue
        each = F.cross_entropy(model(x[i]), y[i].clamp(min=0), reduction="none")
        own = (each * weights[i]).sum() / w
        g = flat(torch.autograd.grad(own, parameters, create_graph=True))
        along = g.detach() * g.detach().norm() ** (power - 2)
        bent = flat(torch.autograd.grad(g, parameters, along))
        loss += float(own.detach() * w / total)
        trace += float(g.detach().square().sum() * w / total)
        gradient += g.detach() * w / total
        structure += bent * w / total
    return loss, gradient, trace, structure


def problem(model, closure, *batch):
    parameters = list(model.parameters())
    return Problem(closure, batch, parameters, [True] * len(parameters), model)


ESTIMATORS = {
    "double": (lambda p: PerSample(DoubleBackward(), power=p), 1e-9),
    "differences": (lambda p: PerSample(FiniteDifference(), power=p), 1e-5),
    "central": (lambda p: PerSample(FiniteDifference(central=True), power=p), 1e-5),
    "compiled": (lambda p: Compiled(PerSample(power=p), backend=None), 1e-5),
}


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_mean_of_the_batch_is_weighted(name, kind, power):
    model, x, y = tokens()
    closure, weights = KINDS[kind](model)
    make, tolerance = ESTIMATORS[name]
    estimator = make(power)
    loss, gradient, trace, structure = loop(model, x, y, weights(y), power)
    for _ in range(3 if name == "compiled" else 1):
        found = estimator.gradients(problem(model, closure, x, y))
        assert float(found.loss) == pytest.approx(loss, rel=1e-9)
        assert relative(flat(found.gradient), gradient) < 1e-9
        assert float(found.trace) == pytest.approx(trace, rel=1e-9)
        assert relative(flat(found.structure), structure) < tolerance


def test_a_recording_takes_the_weights_of_each_batch():
    """The sum of weights is data: another batch of the same shape has another."""
    model, x, y = tokens()
    closure, weights = weighted(model)
    estimator = Compiled(backend=None)
    for seed in range(4):
        _, x, y = tokens(seed)
        found = estimator.gradients(problem(model, closure, x, y))
        assert float(found.weight) == pytest.approx(float(weights(y).sum()))
        assert float(found.loss) == pytest.approx(loop(model, x, y, weights(y), 1)[0], rel=1e-9)


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["chunk", "accumulate", "accumulate chunks"])
def test_parts_have_one_denominator(way, kind, power):
    """.grad = ∇L + h of the loop, however the batch is cut; the first part counts nothing."""
    model, x, y = tokens()
    y = y[(y != IGNORED).sum(1).argsort()]
    closure, weights = KINDS[kind](model)
    loss, gradient, trace, structure = loop(model, x, y, weights(y), power)
    estimator = PerSample(DoubleBackward(), power=power)
    optimizer = F3EO(
        model,
        optim.SGD,
        lr=0.0,
        every=1,
        fraction=1,
        rule=Coupled(),
        strength=Fixed(1.0),
        estimator=estimator,
        chunk=None if way == "accumulate" else 1,
    )
    if way == "chunk":
        found = optimizer.step(closure, x, y)
    else:
        for part in (slice(0, 1), slice(1, 5), slice(5, 6)):
            optimizer.accumulate(closure, x[part], y[part])
        found = optimizer.step()
    assert optimizer.skipped == 0
    assert float(found) == pytest.approx(loss, rel=1e-9)
    assert float(optimizer.trace) == pytest.approx(trace, rel=1e-9)
    assert relative(flat([p.grad for p in model.parameters()]), gradient + structure) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_a_fraction_has_the_gradient_of_the_whole(kind):
    model, x, y = tokens()
    closure, weights = KINDS[kind](model)
    loss, gradient, _, _ = loop(model, x, y, weights(y), 2)
    optimizer = F3EO(model, optim.SGD, lr=0.0, every=1, fraction=0.5, strength=Fixed(0.0))
    optimizer.strength = Fixed(1e-12)
    assert float(optimizer.step(closure, x, y)) == pytest.approx(loss, rel=1e-9)
    assert relative(flat([p.grad for p in model.parameters()]), gradient) < 1e-9


class Given(Sign):
    """Signs by turns."""

    def signs(self, count, generator):
        return next(self.given)


@pytest.mark.parametrize("engine", [DoubleBackward, FiniteDifference])
@pytest.mark.parametrize("kind", KINDS)
def test_signs_have_the_weighted_trace_in_the_mean_over_all_of_them(kind, engine):
    model, x, y = tokens()
    x, y = x[1:5], y[1:5]
    closure, weights = KINDS[kind](model)
    loss, gradient, trace, structure = loop(model, x, y, weights(y), 2)
    traces, structures, values = [], [], []
    for signs in torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * 4):
        estimator = Given(engine())
        estimator.given = iter([signs, signs])
        found = estimator.gradients(problem(model, closure, x, y))
        assert float(found.loss) == pytest.approx(loss, rel=1e-9)
        assert relative(flat(found.gradient), gradient) < 1e-9
        assert float(found.weight) == pytest.approx(float(weights(y).sum()), rel=1e-9) or (
            kind == "by sample"
        )
        traces.append(found.trace)
        structures.append(flat(found.structure))
        values.append(estimator.trace(problem(model, closure, x, y))[1].detach())
    for estimates in (traces, values):
        assert float(torch.stack(estimates).mean()) == pytest.approx(trace, rel=1e-9)
    tolerance = 1e-9 if engine is DoubleBackward else 1e-5
    assert relative(torch.stack(structures).mean(0), structure) < tolerance


def true_trace(model, x, y, per_token):
    """Tr F of labels from the model: Σ ω_i Σ_t Σ_c p_c ‖∇ log p_c‖² / T_i²."""
    kept = y != IGNORED
    counts = kept.sum(1)
    shares = counts / counts.sum() if per_token else torch.full((len(x),), 1 / len(x))
    total = 0.0
    for i, t in kept.nonzero().tolist():
        log_p = model(x[i])[t].log_softmax(-1)
        for c in range(len(log_p)):
            g = flat(torch.autograd.grad(log_p[c], list(model.parameters()), retain_graph=True))
            total += float(log_p[c].detach().exp() * g.square().sum() * shares[i] / counts[i] ** 2)
    return total


@pytest.mark.parametrize("per_token", [False, True])
def test_labels_from_the_model_have_the_weighted_trace(per_token):
    model, x, y = tokens(count=4, positions=3)
    estimator = ModelSampled(probes=None)
    asked = problem(model, lambda x, y: Categorical(model(x), y, per_token=per_token), x, y)
    expected = true_trace(model, x, y, per_token)
    losses, trace = estimator.trace(asked)
    assert float(trace.detach()) == pytest.approx(expected, rel=1e-6)
    found = estimator.gradients(asked)
    assert float(found.trace) == pytest.approx(expected, rel=1e-6)
    assert float(found.loss) == pytest.approx(float(losses.detach().mean()), rel=1e-12)
    if per_token:
        plain = F.cross_entropy(model(x).movedim(-1, 1), y)
        assert float(found.loss) == pytest.approx(float(plain.detach()), rel=1e-12)


def test_sampled_labels_over_signs_have_it_in_the_mean_over_all_of_them(monkeypatch):
    torch.manual_seed(0)
    model = nn.Linear(2, 2).double()
    x, y = torch.randn(3, 1, 2).double(), torch.tensor([[0], [1], [IGNORED]])
    noises = torch.cartesian_prod(*[torch.tensor([1.0, -1.0]).double()] * 6).view(-1, 3, 1, 2)
    given = iter(noises)
    monkeypatch.setattr(Categorical, "noise", lambda self, generator: next(given))
    asked = problem(model, lambda x, y: Categorical(model(x), y, per_token=True), x, y)
    estimator = ModelSampled(Sign())
    found = [float(estimator.trace(asked)[1].detach()) for _ in noises]
    assert sum(found) / len(found) == pytest.approx(true_trace(model, x, y, True), rel=1e-6)


@pytest.mark.parametrize("engine", [DoubleBackward, FiniteDifference])
def test_the_gradient_of_a_batch_is_that_of_the_weighted_mean(engine):
    model, x, y = tokens()
    closure, weights = weighted(model)
    loss, gradient, _, _ = loop(model, x, y, weights(y), 2)
    found = MiniBatch(engine()).gradients(problem(model, closure, x, y))
    assert float(found.loss) == pytest.approx(loss, rel=1e-12)
    assert relative(flat(found.gradient), gradient) < 1e-12
    assert float(found.trace) == pytest.approx(float(gradient.square().sum()), rel=1e-9)


@pytest.mark.parametrize("estimator", [None, MiniBatch(), Sign()])
def test_the_mean_of_the_losses_beside_a_trace_is_the_weighted_one(estimator):
    model, x, y = tokens()
    closure, weights = weighted(model)
    loss, _, trace, _ = loop(model, x, y, weights(y), 2)
    losses, found = fisher_trace(model, closure, x, y, estimator=estimator)
    assert losses.shape == (6,) and float(losses.detach().mean()) == pytest.approx(loss, rel=1e-12)
    if estimator is None:
        assert float(found.detach()) == pytest.approx(trace, rel=1e-9)


def test_second_order_optimizers_descend_the_weighted_mean():
    model, x, y = tokens()
    closure, weights = weighted(model)
    for made, own in ((NewtonCG, closure), (GaussNewton, categorical(model)[0])):
        counted = weights(y) if made is NewtonCG else categorical(model)[1](y)
        loss = loop(model, x, y, counted, 2)[0]
        optimizer = made(model)
        assert float(optimizer.step(own, x, y)) == pytest.approx(loss, rel=1e-9)
        if optimizer.report.accepted:
            after = loop(model, x, y, counted, 2)[0]
            assert optimizer.report.loss_after == pytest.approx(after, rel=1e-9)


def test_kept_tokens_are_the_mean_that_torch_takes():
    model, x, y = tokens()
    plain = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    expected = flat(torch.autograd.grad(plain, list(model.parameters())))
    for closure in (
        lambda x, y: Categorical(model(x), y, per_token=True),
        lambda x, y: Weighted(
            F.cross_entropy(model(x).movedim(-1, 1), y, reduction="none"), y != IGNORED
        ),
    ):
        found = PerSample().gradients(problem(model, closure, x, y))
        assert float(found.loss) == pytest.approx(float(plain.detach()), rel=1e-12)
        assert relative(flat(found.gradient), expected) < 1e-12
    labels = y[:, 0]
    flat_mean = F.cross_entropy(model(x)[:, 0], labels)
    found = PerSample().gradients(
        problem(model, lambda x, y: Categorical(model(x)[:, 0], y, per_token=True), x, labels)
    )
    assert float(found.loss) == pytest.approx(float(flat_mean.detach()), rel=1e-12)


def test_weights_of_one_are_no_weights_bit_for_bit():
    model, x, y = tokens()
    y = y.clamp(min=0)

    def losses(x, y):
        return F.cross_entropy(model(x).movedim(-1, 1), y, reduction="none").mean(1)

    one = PerSample().loss_gradient(problem(model, losses, x, y))
    other = PerSample().loss_gradient(
        problem(model, lambda x, y: Weighted(losses(x, y), torch.ones(len(x))), x, y)
    )
    assert torch.equal(one.loss, other.loss) and float(other.weight) == one.weight == 6
    assert all(torch.equal(a, b) for a, b in zip(one.gradient, other.gradient, strict=True))


def test_a_batch_of_which_nothing_counts_is_skipped():
    model, x, y = tokens()
    optimizer = F3EO(model, optim.Adam, lr=0.1)
    before = flat(model.parameters()).clone()
    with pytest.warns(UserWarning, match="the loss is not finite.*skipped"):
        optimizer.step(categorical(model)[0], x, torch.full_like(y, IGNORED))
    assert torch.equal(before, flat(model.parameters())) and optimizer.skipped == 1


def test_16_bit_losses_keep_whole_counts():
    """1,000 and 1,001 are one number in bfloat16."""
    losses = torch.ones(2, 1001, dtype=torch.bfloat16, requires_grad=True)
    kept = torch.ones(2, 1001, dtype=torch.bool)
    kept[0, 0] = False
    assert Weighted(losses, kept).per_sample()[1].tolist() == [1000.0, 1001.0]


L = torch.ones(3, 2, requires_grad=True)
BAD = {
    "no tensor": ((L, [1.0]), TypeError, "weights as a tensor, received list"),
    "a likelihood": (
        (Categorical(torch.ones(3, 2), torch.ones(3).long()), torch.ones(3)),
        TypeError,
        "losses as a tensor, received Categorical",
    ),
    "complex": ((L, torch.ones(3, dtype=torch.complex64)), TypeError, "complex64"),
    "integers": ((torch.ones(3).long(), torch.ones(3)), TypeError, "int64"),
    "scalar": ((L.sum(), torch.ones(())), ValueError, r"received \(\) and \(\)"),
    "shape": ((L, torch.ones(2)), ValueError, r"received \(3, 2\) and \(2,\).*expand_as"),
    "broadcast": ((L, torch.ones(3, 1)), ValueError, r"\(3, 1\).*expand_as"),
    "gradient": ((L, torch.ones(3, requires_grad=True)), ValueError, r"weights\.detach\(\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_weight_is_refused_with_the_cure(name):
    arguments, error, match = BAD[name]
    with pytest.raises(error, match=match):
        Weighted(*arguments)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_that_cannot_be_are_refused_with_their_place(value):
    model, x, y = tokens()

    def closure(x, y):
        weights = torch.ones(y.shape)
        weights[2, 1] = value
        return Weighted(
            F.cross_entropy(model(x).movedim(-1, 1), y.clamp(min=0), reduction="none"), weights
        )

    with pytest.raises(ValueError, match=rf"received {value} at \(2, 1\).*weight 0"):
        F3EO(model, optim.SGD, lr=0.1).step(closure, x, y)
