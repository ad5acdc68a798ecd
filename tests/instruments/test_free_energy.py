"""Free energies against closed forms, dense matrices and torch.distributions, in float64."""

from math import log, pi

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import dense
from cases import Case, case
from f3eo import ByRow, Categorical, Elementwise, Gaussian, Weighted
from f3eo.instruments.free_energy import (
    Change,
    GaussianPrior,
    IsotropicNoise,
    Laplace,
    LogUniformPrior,
    MultiplicativeNoise,
    RelativePrior,
    effect,
    free_energy,
)
from instruments.spectra import gradients, matrix, parts, seeded
from second_order.helpers import trained, weights

STD = 0.3
FEW = "ignore:the relative noise has variance"
"""Six samples determine few of 111 parameters, so that the best relative noise is above 1."""


class LinearGaussian:
    """y = Xw + N(0, STD²), w ~ N(0, 1/α), at its maximum a posteriori."""

    def __init__(self, samples: int, size: int, alpha: float) -> None:
        g = seeded(samples)
        self.x = torch.randn(samples, size, generator=g, dtype=torch.float64)
        self.y = self.x[:, 0] + STD * torch.randn(samples, generator=g, dtype=torch.float64)
        self.alpha, self.w = alpha, torch.zeros(size, dtype=torch.float64, requires_grad=True)
        self.move(alpha)

    def move(self, alpha: float) -> None:
        """To the maximum for another α."""
        h = self.x.mT @ self.x / STD**2 + alpha * torch.eye(len(self.w), dtype=torch.float64)
        self.w.data = torch.linalg.solve(h, self.x.mT @ self.y / STD**2)

    def closure(self, x: Tensor, y: Tensor) -> Gaussian:
        return Gaussian(x @ self.w, y, STD)

    def evidence(self, alpha: float) -> float:
        """log N(y; 0, STD² I + X Xᵀ/α)."""
        covariance = STD**2 * torch.eye(len(self.y), dtype=torch.float64)
        covariance += self.x @ self.x.mT / alpha
        return float(MultivariateNormal(torch.zeros_like(self.y), covariance).log_prob(self.y))

    @property
    def data(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.x[:3], self.y[:3]), (self.x[3:], self.y[3:])]


@pytest.mark.parametrize("of", ["gauss_newton"])
@pytest.mark.parametrize(("samples", "size"), [(7, 20), (30, 4), (1, 1)])
def test_laplace_is_the_closed_form_evidence_of_a_linear_gaussian_model(samples, size, of):
    model = LinearGaussian(samples, size, 2.5)
    data = model.data if samples > 3 else [(model.x, model.y)]
    prior = GaussianPrior(2.5)
    found = free_energy([model.w], model.closure, data, prior, posterior=Laplace(of=of))
    assert abs(-found.value - model.evidence(2.5)) < 1e-8
    assert found.samples == samples and found.complexity.error == 0


def test_empirical_bayes_maximises_the_evidence():
    model = LinearGaussian(30, 6, 1.0)
    for _ in range(60):  # w at its maximum, then α at MacKay's fixed point
        found = free_energy([model.w], model.closure, model.data, GaussianPrior())
        model.move(found.precision)
    best = found.precision
    assert abs(best * float(model.w.data.square().sum()) - found.dimension.value) < 1e-9
    for factor in (0.99, 1.01):
        assert model.evidence(best * factor) < model.evidence(best)
    assert abs(-found.value - model.evidence(best)) < 1e-8


def negative_log_likelihoods(row: Case) -> Tensor:
    with torch.no_grad():
        return row.losses(*row.batch).double()


@pytest.mark.parametrize("of", ["gauss_newton", "fisher"])
@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_accuracy_and_complexity_of_laplace_are_those_of_its_gaussian(structure, of):
    row, alpha = case("mlp"), 0.7
    theta, count = weights(row.model), len(row.batch[0])
    curvature = matrix(row, of)
    if structure == "diagonal":
        curvature = curvature.diag().diag()
    eye = torch.eye(len(theta), dtype=torch.float64)
    q = MultivariateNormal(theta, precision_matrix=count * curvature + alpha * eye)
    p = MultivariateNormal(torch.zeros_like(theta), precision_matrix=alpha * eye)
    posterior = Laplace(structure, of=of)
    prior = GaussianPrior(alpha)
    found = free_energy(row.model, row.drawn, parts(row), prior, posterior=posterior)
    spread = 0.5 * count * (curvature * q.covariance_matrix).sum()
    losses = negative_log_likelihoods(row)
    assert abs(found.complexity.value - float(kl_divergence(q, p))) < 1e-8
    assert abs(found.accuracy.value + float(losses.sum() + spread)) < 1e-8
    assert abs(found.accuracy.error - float(losses.std()) * count**0.5) < 1e-9
    assert abs(found.dimension.value - 2 * float(spread)) < 1e-9
    assert abs(found.per_sample * count - found.value) < 1e-12


def dense_factors(row: Case) -> list[Tensor]:
    """Blocks of the Kronecker-factored G of an MLP: of a bias B = mean of δ δᵀ, its own block of G;
    of a weight B ⊗ A, A the mean of a aᵀ."""
    layers = [m for m in row.model if isinstance(m, nn.Linear)]
    inputs: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda m, a, z: inputs.append(a[0].detach())) for m in layers]
    row.model(row.batch[0])
    for hook in hooks:
        hook.remove()
    whole, blocks, end = matrix(row, "gauss_newton"), [], 0
    for layer, a in zip(layers, inputs, strict=True):
        start = end + layer.weight.numel()
        end = start + len(layer.bias)
        b = whole[start:end, start:end].contiguous()
        blocks += [torch.kron(b, a.mT @ a / len(a)), b]
    return blocks


def test_kronecker_factors_are_those_of_the_dense_blocks():
    row, alpha = case("mlp"), 0.7
    theta, count = weights(row.model), len(row.batch[0])
    h = torch.block_diag(*[count * b for b in dense_factors(row)])
    h += alpha * torch.eye(len(theta), dtype=torch.float64)
    found = free_energy(
        row.model, row.drawn, parts(row), GaussianPrior(alpha), posterior=Laplace("kronecker")
    )
    expected = float(negative_log_likelihoods(row).sum() + 0.5 * alpha * theta.square().sum())
    expected += 0.5 * float(torch.logdet(h)) - 0.5 * len(theta) * log(alpha)
    assert abs(found.value - expected) < 1e-8


@pytest.mark.parametrize("whole", [True, False])
def test_kronecker_keeps_blocks_of_vectors_and_diagonals_of_the_rest(whole, monkeypatch):
    """Embeddings have no factors; vectors that are too long keep their diagonal."""
    monkeypatch.setattr("f3eo.instruments.free_energy.structures.BLOCK", 3 if whole else 2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3), nn.LayerNorm(3), nn.Linear(3, 4)).double()
    model[2].requires_grad_(False)
    index = torch.randint(5, (7,))
    row = Case(model, (index, index % 4))
    g = matrix(row, "gauss_newton")
    kept = torch.eye(len(g), dtype=torch.bool)
    for start in (15, 18) if whole else ():
        kept[start : start + 3, start : start + 3] = True
    h = 7 * g * kept + torch.eye(len(g), dtype=torch.float64)
    found = free_energy(
        model, row.drawn, parts(row), GaussianPrior(1.0), posterior=Laplace("kronecker")
    )
    expected = negative_log_likelihoods(row).sum() + 0.5 * weights(model).square().sum()
    assert abs(found.value - float(expected + 0.5 * torch.logdet(h))) < 1e-8


def test_laplace_torch_agrees():
    oracle = pytest.importorskip("laplace")
    row, alpha = case("mlp"), 0.7
    row.model[3] = nn.Tanh()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*row.batch), 4)
    for structure, theirs in (("full", "full"), ("diagonal", "diag"), ("kronecker", "kron")):
        other = oracle.Laplace(
            row.model, "classification", "all", hessian_structure=theirs, prior_precision=alpha
        )
        other.fit(loader)
        found = free_energy(
            row.model, row.drawn, loader, GaussianPrior(alpha), posterior=Laplace(structure)
        )
        expected = float(other.log_marginal_likelihood(torch.tensor(alpha, dtype=torch.float64)))
        assert abs(-found.value - expected) < 1e-9 * abs(expected), structure


def test_lanczos_states_the_error_of_complexity(monkeypatch):
    row, prior = case("cnn_1d"), GaussianPrior(0.05)
    exact = free_energy(row.model, row.drawn, parts(row), prior)
    monkeypatch.setattr("f3eo.instruments.decomposition.EXACT", 1)
    found = free_energy(
        row.model,
        row.drawn,
        parts(row),
        prior,
        posterior=Laplace(probes=8, generator=seeded(1)),
    )
    assert exact.complexity.error == 0 < found.complexity.error
    assert abs(found.complexity.value - exact.complexity.value) < 3 * found.complexity.error


# Noise.


@pytest.mark.parametrize("of", ["gauss_newton", "fisher"])
def test_isotropic_noise_is_its_formula(of):
    row, alpha, std = case("mlp"), 0.7, 0.05
    theta, count = weights(row.model), len(row.batch[0])
    q, p = Normal(theta, std), Normal(torch.zeros_like(theta), alpha**-0.5)
    posterior = IsotropicNoise(std, of=of)
    prior = GaussianPrior(alpha)
    found = free_energy(row.model, row.drawn, parts(row), prior, posterior=posterior)
    losses = negative_log_likelihoods(row)
    assert abs(found.complexity.value - float(kl_divergence(q, p).sum())) < 1e-9
    trace = float(matrix(row, of).trace())
    expected = -float(losses.sum()) - 0.5 * std**2 * count * trace
    assert abs(found.accuracy.value - expected) < 1e-9
    if of == "fisher":
        each = losses + 0.5 * std**2 * gradients(row).square().sum(1)
        assert abs(found.accuracy_per_sample.error - float(each.std()) / count**0.5) < 1e-12


def test_isotropic_noise_is_exact_for_a_linear_gaussian_model():
    model = LinearGaussian(9, 3, 1.0)
    found = free_energy(
        [model.w], model.closure, model.data, GaussianPrior(1.0), posterior=IsotropicNoise(0.2)
    )
    points = 0.2 * torch.randn(100_000, 3, generator=seeded(), dtype=torch.float64) + model.w.data
    z = (model.y - points @ model.x.mT) / STD
    draws = (-0.5 * z.square() - log(STD) - 0.5 * log(2 * pi)).sum(1)
    assert abs(found.accuracy.value - float(draws.mean())) < 4 * float(draws.std()) / 100_000**0.5


@pytest.mark.parametrize("precision", [0.7, None])
def test_the_best_isotropic_noise_is_the_lowest(precision):
    row = case("mlp")

    def value(alpha, std):
        prior, posterior = GaussianPrior(alpha), IsotropicNoise(std)
        return free_energy(row.model, row.drawn, parts(row), prior, posterior=posterior)

    best = value(precision, None)
    alpha, std = best.precision, best.noise
    assert abs(value(alpha, std).value - best.value) < 1e-9
    for factor in (0.98, 1.02):
        assert value(alpha, factor * std).value > best.value
        if precision is None:
            assert value(factor * alpha, std).value > best.value
    known = value(None, 0.1)
    for factor in (0.98, 1.02):
        assert value(factor * known.precision, 0.1).value > known.value


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize("metric", [None, Elementwise(vectors=0.0), ByRow()])
@pytest.mark.parametrize("of", ["gauss_newton", "fisher"])
def test_multiplicative_noise_is_its_formula_and_the_best_is_the_lowest(metric, of):
    row, count = case("mlp"), 6
    parameters = trained(row.model)
    if isinstance(metric, ByRow):
        scales = [
            p.square().mean(1, keepdim=True).sqrt().expand_as(p) if p.ndim > 1 else p.abs()
            for p in parameters
        ]
    else:
        flat = 0.0 if metric else 1.0
        scales = [p.abs() * (1 if p.ndim > 1 else flat) for p in parameters]
    d = dense.flat(scales).detach()
    trace = float((d * matrix(row, of).diag() * d).sum())
    size = int((d > 0).sum())

    def value(alpha=None):
        posterior = MultiplicativeNoise(alpha, metric=metric, of=of)
        return free_energy(row.model, row.drawn, parts(row), LogUniformPrior(), posterior=posterior)

    found, losses = value(0.01), negative_log_likelihoods(row)
    assert abs(found.complexity.value + 0.5 * size * log(0.01)) < 1e-9
    assert abs(found.accuracy.value + float(losses.sum()) + 0.005 * count * trace) < 1e-9
    best = value()
    assert abs(best.noise - size / (count * trace)) < 1e-9 * best.noise
    for factor in (0.98, 1.02):
        assert value(factor * best.noise).value > best.value


@pytest.mark.parametrize("variance", [0.5, 0.9])
@pytest.mark.parametrize("metric", [Elementwise(), ByRow(), ByRow(vectors=0)])
def test_a_relative_prior_is_its_gaussian_and_its_best_noise_is_the_lowest(metric, variance):
    row = case("mlp")
    parameters = trained(row.model)
    rows = [p.square().mean(1, keepdim=True).sqrt().expand_as(p) for p in parameters if p.ndim > 1]
    flat = 0.0 if metric.vectors == 0 else 1.0
    scales = [p.abs() for p in parameters]
    if isinstance(metric, ByRow):
        own = iter(rows)
        scales = [next(own) if p.ndim > 1 else flat * p.abs() for p in parameters]
    d, theta = dense.flat(scales).detach(), dense.flat(parameters).detach()
    theta, d = theta[d > 0], d[d > 0]
    prior = RelativePrior(variance)

    def value(alpha=None):
        posterior = MultiplicativeNoise(alpha, metric=metric)
        return free_energy(row.model, row.drawn, parts(row), prior, posterior=posterior)

    found, q = value(0.01), Normal(theta, 0.1 * d)
    divergence = float(kl_divergence(q, Normal(0 * theta, variance**0.5 * d)).sum())
    assert abs(found.complexity.value - divergence) < 1e-9 * divergence
    best = value()
    assert best.noise < variance
    for factor in (0.98, 1.02):
        assert value(factor * best.noise).value > best.value


def test_noise_above_the_parameters_is_warned_of():
    row = case("mlp")
    with pytest.warns(UserWarning, match="variance 1.5, more than the parameters themselves"):
        free_energy(
            row.model,
            row.drawn,
            parts(row),
            LogUniformPrior(),
            posterior=MultiplicativeNoise(1.5),
        )


# Data, updates.


def position_wise() -> Case:
    """A model that treats every position by itself."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    return Case(model, (x, torch.randint(3, (5, 6))))


POSTERIORS = [
    (Laplace(), GaussianPrior(0.7)),
    (Laplace("diagonal"), GaussianPrior()),
    (Laplace("kronecker"), GaussianPrior(0.7)),
    (IsotropicNoise(), GaussianPrior()),
    (MultiplicativeNoise(), LogUniformPrior()),
]


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize(("posterior", "prior"), POSTERIORS)
def test_tokens_count_one_by_one_with_their_weights(posterior, prior):
    row = position_wise()
    x, y = row.batch
    if getattr(posterior, "structure", "") != "kronecker":  # see there
        y[2, 3:] = -100

    def closure(x, y):
        return Categorical(row.model(x), y, per_token=True)

    batches = [(x[:2], y[:2]), (x[2:], y[2:])]
    kept = y.flatten() != -100
    tokens = x.flatten(0, 1)[kept], y.flatten()[kept]
    found = free_energy(row.model, closure, batches, prior, posterior=posterior)
    expected = free_energy(row.model, row.drawn, [tokens], prior, posterior=posterior)
    assert found.samples == len(tokens[1])
    assert abs(found.accuracy.value - expected.accuracy.value) < 1e-8
    assert abs(found.complexity.value - expected.complexity.value) < 1e-8


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize(("posterior", "prior"), POSTERIORS)
def test_a_weight_of_two_is_the_sample_twice(posterior, prior):
    row = case("mlp")
    x, y = row.batch
    of = type(posterior)(of="fisher")
    twice = torch.tensor([0, 0, 1, 2, 3, 3, 5])
    w = torch.tensor([2.0, 1, 1, 2, 0, 1], dtype=torch.float64)
    found = free_energy(
        row.model, lambda x, y, w: Weighted(row.losses(x, y), w), [(x, y, w)], prior, posterior=of
    )
    expected = free_energy(row.model, row.losses, [(x[twice], y[twice])], prior, posterior=of)
    assert abs(found.accuracy.value - expected.accuracy.value) < 1e-8
    assert abs(found.complexity.value - expected.complexity.value) < 1e-8


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize(("posterior", "prior"), POSTERIORS)
def test_the_effect_of_an_update_is_the_difference_and_leaves_no_trace(posterior, prior):
    row = case("mlp")
    before = weights(row.model)
    update = [torch.full_like(p, 0.01) for p in trained(row.model)]
    found = effect(row.model, row.drawn, parts(row), prior, update, posterior=posterior)
    assert torch.equal(weights(row.model), before)
    first = free_energy(row.model, row.drawn, parts(row), prior, posterior=posterior)
    with torch.no_grad():
        for p, u in zip(trained(row.model), update, strict=True):
            p.add_(u)
    second = free_energy(row.model, row.drawn, parts(row), prior, posterior=posterior)
    assert abs(found.value - (second.value - first.value)) < 1e-9
    assert abs(found.accuracy.value - second.accuracy.value + first.accuracy.value) < 1e-9
    assert abs(found.complexity - second.complexity.value + first.complexity.value) < 1e-9
    gains = second.fits - first.fits
    assert abs(found.accuracy.error - float(gains.std()) * 6**0.5) < 1e-9
    assert found.accuracy.error < 0.5 * first.accuracy.error  # paired


def test_an_update_that_fails_leaves_the_parameters():
    row = case("mlp")
    before = weights(row.model)
    update = [torch.full_like(p, torch.nan) for p in trained(row.model)]
    with pytest.raises(FloatingPointError, match="not finite"):
        effect(row.model, row.drawn, parts(row), GaussianPrior(1.0), update)
    assert torch.equal(weights(row.model), before)


def test_the_mean_of_a_prior_moves_its_centre():
    row = case("mlp")
    own = [p.detach().clone() for p in trained(row.model)]
    prior = GaussianPrior(0.7, mean=own)
    found = free_energy(row.model, row.drawn, parts(row), prior, posterior=IsotropicNoise(0.1))
    at_zero = GaussianPrior(0.7)
    other = free_energy(row.model, row.drawn, parts(row), at_zero, posterior=IsotropicNoise(0.1))
    shift = 0.35 * float(weights(row.model).square().sum())
    assert abs(other.complexity.value - found.complexity.value - shift) < 1e-9


def test_records_say_what_they_are():
    row = case("mlp")
    found = free_energy(row.model, row.drawn, parts(row), GaussianPrior(0.7))
    assert "nats per sample = complexity" in str(found)
    assert str(Change(found, found)).startswith("free energy +0 nats")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GaussianPrior(0.0), ValueError, "precision > 0, or None"),
        (lambda: Laplace("dense"), ValueError, "'full', 'diagonal', 'kronecker', received 'dense'"),
        (lambda: Laplace(of="hessian"), ValueError, "'gauss_newton', 'fisher', received"),
        (lambda: IsotropicNoise(-1.0), ValueError, "std > 0 or None, received -1"),
        (lambda: MultiplicativeNoise(float("inf")), ValueError, "alpha > 0 or None, received inf"),
        (lambda: MultiplicativeNoise(metric="row"), TypeError, "a metric such as"),
    ],
)
def test_arguments_out_of_range_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_what_does_not_go_together_is_refused():
    row = case("mlp")
    given = row.model, row.drawn, parts(row)
    with pytest.raises(
        TypeError, match="MultiplicativeNoise needs a LogUniformPrior or RelativePrior, received"
    ):
        free_energy(*given, GaussianPrior(1.0), posterior=MultiplicativeNoise())
    with pytest.raises(TypeError, match="Laplace needs a GaussianPrior"):
        free_energy(*given, LogUniformPrior())
    with pytest.raises(TypeError, match=r"posterior is Laplace\(\).*received 'full'"):
        free_energy(*given, GaussianPrior(1.0), posterior="full")  # pyright: ignore
    for posterior in (Laplace(), Laplace("diagonal"), Laplace("kronecker"), IsotropicNoise()):
        with pytest.raises(TypeError, match="must return a likelihood"):
            free_energy(row.model, row.losses, parts(row), GaussianPrior(1.0), posterior=posterior)
    with pytest.raises(ValueError, match="each of the 6 trained parameters"):
        effect(*given, GaussianPrior(1.0), [torch.zeros(3)])
    with pytest.raises(ValueError, match="mean for each of the 6"):
        free_energy(*given, GaussianPrior(1.0, mean=[torch.zeros(3)]))
    small = free_energy(row.model, row.drawn, parts(row)[:1], GaussianPrior(1.0))
    with pytest.raises(ValueError, match="the same samples"):
        Change(small, free_energy(*given, GaussianPrior(1.0)))


def test_no_best_level_is_said():
    row = case("mlp")
    at_zero = [p.detach().clone() for p in trained(row.model)]
    for posterior in (Laplace(), IsotropicNoise()):
        with pytest.raises(ValueError, match=r"no best precision.*give GaussianPrior\(precision\)"):
            free_energy(
                row.model,
                row.drawn,
                parts(row),
                GaussianPrior(mean=at_zero),
                posterior=posterior,
            )
    with torch.no_grad():
        for p in trained(row.model):
            p.zero_()
    with pytest.raises(ValueError, match=r"no best noise level.*give MultiplicativeNoise\(alpha\)"):
        free_energy(
            row.model,
            row.drawn,
            parts(row),
            LogUniformPrior(),
            posterior=MultiplicativeNoise(),
        )
