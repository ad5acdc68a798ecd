"""Every estimator against theory, in mean and in variance, value and gradient."""

from itertools import product as tuples

import pytest
import torch

from cases import case
from dense import flat, hessian, relative, truth
from f3eo import (
    Categorical,
    DoubleBackward,
    FiniteDifference,
    Gaussian,
    MiniBatch,
    ModelSampled,
    PerSample,
    Sign,
    fisher_trace,
)
from f3eo.closure.problem import Problem

ENGINES = {"double backward": DoubleBackward(), "central": FiniteDifference(central=True)}


def problem(c, closure=None, batch=None, generator=None):
    parameters = [p for p in c.model.parameters() if p.requires_grad]
    closure, batch = closure or c.losses, c.batch if batch is None else batch
    return Problem(closure, batch, parameters, [True] * len(parameters), c.model, generator)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Batch: the source document's.


@pytest.mark.parametrize("engine", ENGINES)
def test_batch_is_the_squared_norm_of_the_mean_gradient(engine):
    c = case("mlp")
    t = truth(c.model, c.losses, *c.batch)
    found = MiniBatch(ENGINES[engine]).gradients(problem(c))
    assert relative(found.trace, t.gradient.square().sum()) < 1e-10
    assert relative(flat(found.gradient), t.gradient) < 1e-10
    h = hessian(problem(c).parameters, c.losses(*c.batch).mean())
    assert relative(flat(found.structure), h @ t.gradient) < 1e-7


def test_batch_is_exact_for_one_sample():
    c = case("mlp")
    one = tuple(t[:1] for t in c.batch)
    t = truth(c.model, c.losses, *one)
    found = MiniBatch().gradients(problem(c, batch=one))
    assert relative(found.trace, t.trace) < 1e-10
    assert relative(flat(found.structure), t.structure) < 1e-10


def test_batch_has_the_bias_that_theory_gives():
    """E‖g_B‖² = (1 − 1/B)‖E g‖² + Tr F̂/B over all batches of B samples drawn with replacement."""
    c = case("mlp")
    t = truth(c.model, c.losses, *c.batch)
    x, y = c.batch
    draws = [torch.tensor(i) for i in tuples(range(len(x)), repeat=2)]
    values = [fisher_trace(c.model, c.losses, x[i], y[i], estimator=MiniBatch())[1] for i in draws]
    expected = 0.5 * t.gradient.square().sum() + 0.5 * t.trace
    assert relative(torch.stack(values).mean(), expected) < 1e-10


# Sign: unbiased over all sign patterns, exactly.


class Signs(Sign):
    """Sign with given signs."""

    def __init__(self, values, engine=None):
        super().__init__(engine)
        self.values = values

    def signs(self, count, generator):
        return torch.tensor(self.values, dtype=torch.float64)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("whole", [False, True])
def test_sign_mean_and_variance_over_all_patterns(engine, whole):
    c = case("mlp")
    t = truth(c.model, c.losses, *c.batch)
    patterns = list(tuples([1.0, -1.0], repeat=len(t.losses)))[:32]  # the rest mirrors these
    made = [
        Signs(r, ENGINES[engine]).gradients(
            problem(c, lambda: c.losses(*c.batch), ()) if whole else problem(c)
        )
        for r in patterns
    ]
    values = torch.stack([m.trace for m in made])
    assert relative(values.mean(), t.trace) < 1e-10
    gram = t.gradients @ t.gradients.T
    variance = 2 * (gram.square().sum() - gram.diag().square().sum()) / len(gram) ** 2
    assert relative(values.var(unbiased=False), variance) < 1e-10
    structure = torch.stack([flat(m.structure) for m in made]).mean(0)
    assert relative(structure, t.structure) < 1e-7
    for m in made[:4]:
        assert relative(flat(m.gradient), t.gradient) < 1e-10
        assert relative(m.loss, t.losses.mean()) < 1e-10


def test_sign_draws_both_signs_evenly():
    r = torch.stack([Sign().signs(50, seeded(s)) for s in range(400)])
    assert set(r.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(r.mean())) < 4 / (50 * 400) ** 0.5
    pairs = (r.T @ r / len(r)).fill_diagonal_(0)
    assert float(pairs.abs().max()) < 6 / 400**0.5


def test_balanced_signs_give_the_trace_of_the_covariance():
    c = case("mlp")
    t = truth(c.model, c.losses, *c.batch)
    patterns = [r for r in tuples([1.0, -1.0], repeat=6) if sum(r) == 0]
    values = torch.stack([Signs(r).gradients(problem(c)).trace for r in patterns])
    assert relative(values.mean(), t.gradients.var(0).sum()) < 1e-10
    assert all(Sign(balanced=True).signs(6, seeded(s)).sum() == 0 for s in range(20))


@pytest.mark.parametrize("name", ["cnn", "attention", "no_rules"])
def test_sign_runs_on_any_architecture(name):
    c = case(name)
    t = truth(c.model, c.losses, *c.batch)
    p = problem(c, generator=seeded())
    values = torch.stack([fisher_value(Sign(), p) for _ in range(300)])
    assert abs(float(values.mean() - t.trace)) < 4 * float(values.std()) / 300**0.5


def fisher_value(estimator, p):
    return estimator.trace(p)[1].detach()


# ModelSampled: the true Fisher information.


def true_fisher(c):
    """Σ over all labels of p(y|x)‖∇ℓ(x, y)‖², and ½∇ of it; classification without positions."""
    x, _ = c.batch
    classes = c.model(x).shape[-1]
    total = 0
    for i in range(len(x)):
        p = c.model(x[i : i + 1]).softmax(-1)[0]
        for k in range(classes):
            loss = c.losses(x[i : i + 1], torch.tensor([k])).mean()
            g = torch.autograd.grad(loss, problem(c).parameters, create_graph=True)
            total = total + p[k] * sum(v.square().sum() for v in g)
    trace = total / len(x)
    return trace.detach(), flat(torch.autograd.grad(trace / 2, problem(c).parameters))


def test_exact_true_trace_and_its_gradient_with_the_score_term():
    c = case("mlp")
    trace, structure = true_fisher(c)
    found = ModelSampled(probes=None).gradients(problem(c, c.drawn))
    assert relative(found.trace, trace) < 1e-10
    assert relative(flat(found.structure), structure) < 1e-10
    expected = truth(c.model, c.losses, *c.batch)
    assert relative(flat(found.gradient), expected.gradient) < 1e-10


@pytest.mark.parametrize("over", [lambda: PerSample(power=2), Sign])
def test_sampled_true_trace_is_unbiased_in_value_and_gradient(over):
    c = case("mlp")
    trace, structure = true_fisher(c)
    p, estimator = problem(c, c.drawn, generator=seeded()), ModelSampled(over())
    made = [estimator.gradients(p) for _ in range(1200)]
    values = torch.stack([m.trace for m in made])
    assert abs(float(values.mean() - trace)) < 4 * float(values.std()) / 1200**0.5
    rows = torch.stack([flat(m.structure) for m in made])
    error = (rows.mean(0) - structure).norm()
    assert error < 2 * (rows.var(0).sum() / 1200).sqrt()
    # Sharp enough to see a missing score term: along that term, the mean lies at 0 and not at 1.
    missing = without_score_term(c) - structure
    share = (rows - structure) @ missing / missing.square().sum()
    assert abs(float(share.mean())) < 4 * float(share.std()) / 1200**0.5 < 0.5


def without_score_term(c):
    """½ Σ_y p(y) ∇‖∇ℓ(y)‖² with p held fixed: what drawing and detaching labels would give."""
    x, _ = c.batch
    total = 0
    for i in range(len(x)):
        p = c.model(x[i : i + 1]).softmax(-1)[0].detach()
        for k in range(len(p)):
            loss = c.losses(x[i : i + 1], torch.tensor([k])).mean()
            g = torch.autograd.grad(loss, problem(c).parameters, create_graph=True)
            total = total + p[k] * sum(v.square().sum() for v in g)
    return flat(torch.autograd.grad(total / len(x) / 2, problem(c).parameters))


def test_true_trace_equals_the_gauss_newton_trace():
    c = case("mlp")
    x, _ = c.batch
    total = 0.0
    for i in range(len(x)):
        z = c.model(x[i : i + 1])[0]
        jacobian = torch.stack(
            [flat(torch.autograd.grad(v, problem(c).parameters, retain_graph=True)) for v in z]
        )
        p = z.softmax(-1)
        total += float(torch.trace(jacobian.T @ (p.diag() - p.outer(p)) @ jacobian).detach())
    found = ModelSampled(probes=None).gradients(problem(c, c.drawn)).trace
    assert abs(float(found) - total / len(x)) < 1e-10 * total


def test_labels_drawn_from_the_model_have_the_same_trace():
    c = case("attention")
    exact = ModelSampled(probes=None).gradients(problem(c, c.drawn)).trace
    x, y = c.batch
    values = []
    for s in range(300):
        drawn = c.drawn(x, y).sample(seeded(s))
        values.append(fisher_trace(c.model, c.losses, x, drawn)[1].detach())
    values = torch.stack(values)
    assert abs(float(values.mean() - exact)) < 4 * float(values.std()) / 300**0.5


def test_gaussian_true_trace():
    c = case("regression")

    def closure(x, y):
        return Gaussian(c.model(x), y, std=0.5)

    found = ModelSampled(probes=None).gradients(problem(c, closure)).trace
    x, _ = c.batch
    total = 0.0
    for i in range(len(x)):
        for v in c.model(x[i : i + 1])[0]:
            g = flat(torch.autograd.grad(v, problem(c).parameters, retain_graph=True))
            total += float((g / 0.5 / 2).square().sum())  # two outputs, averaged
    assert abs(float(found) - total / len(x)) < 1e-10 * total


@pytest.mark.parametrize("name", ["mlp", "attention"])
def test_a_likelihood_gives_the_losses_of_torch(name):
    c = case(name)
    expected = truth(c.model, c.losses, *c.batch)
    losses, trace = fisher_trace(c.model, c.drawn, *c.batch)
    assert relative(losses, expected.losses) < 1e-12
    assert relative(trace, expected.trace) < 1e-10


# Bad input.


def test_model_sampled_needs_a_likelihood():
    c = case("mlp")
    with pytest.raises(TypeError, match="Categorical"):
        ModelSampled().gradients(problem(c))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ModelSampled(probes=0),
        lambda: ModelSampled(Sign(FiniteDifference())),
        lambda: ModelSampled(Sign(balanced=True)),
        lambda: ModelSampled(Sign(), probes=None),
        lambda: PerSample(DoubleBackward(), memory=0, power=2),
    ],
)
def test_what_an_estimator_cannot_be(make):
    with pytest.raises(ValueError, match=r"received|no meaning"):
        make()


def test_scalar_losses_are_refused_where_samples_are_needed():
    c = case("mlp")
    for estimator in (PerSample(DoubleBackward(), power=2), Sign()):
        with pytest.raises(ValueError, match='reduction="none"'):
            estimator.gradients(problem(c, lambda x, y: c.losses(x, y).mean()))
    found = MiniBatch().gradients(problem(c, lambda x, y: c.losses(x, y).mean()))
    assert relative(found.trace, MiniBatch().gradients(problem(c)).trace) < 1e-12


def test_categorical_needs_its_classes_last():
    with pytest.raises(ValueError, match="movedim"):
        Categorical(torch.zeros(4, 10, 7), torch.zeros(4, 7, dtype=torch.long))
