"""Categorical and Gaussian against torch.distributions, torch.func and each other."""

import pytest
import torch
import torch.nn.functional as F
from torch import distributions as D
from torch.func import hessian

from f3eo import Categorical, Gaussian
from f3eo.extend import Likelihood

SHAPES = [(5,), (5, 3), (5, 2, 3)]  # (B, …) of the targets


def logits(shape, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, classes, generator=generator, dtype=torch.float64)


def classes(shape, count=4, seed=1):
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(seed))


def normal(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Losses.


@pytest.mark.parametrize("shape", SHAPES)
def test_categorical_losses_are_negative_log_probabilities_averaged_over_positions(shape):
    z, y = logits(shape), classes(shape)
    expected = -D.Categorical(logits=z).log_prob(y).reshape(5, -1).mean(1)
    torch.testing.assert_close(Categorical(z, y).losses(), expected)


@pytest.mark.parametrize("std", [1.0, 0.3, torch.tensor([0.5, 2.0, 1.0])])
@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3)])
def test_gaussian_losses_are_negative_log_probabilities_averaged_over_dimensions(shape, std):
    mean, y = normal(shape), normal(shape, 1)
    expected = -D.Normal(mean, std).log_prob(y).reshape(5, -1).mean(1)
    torch.testing.assert_close(Gaussian(mean, y, std).losses(), expected)


def test_gaussian_of_shape_b():
    mean, y = normal((5,)), normal((5,), 1)
    torch.testing.assert_close(Gaussian(mean, y).losses(), -D.Normal(mean, 1.0).log_prob(y))


def test_ignored_positions_do_not_count_and_the_others_are_averaged():
    z, y = logits((4, 3)), classes((4, 3))
    y[0, 1] = y[1] = -100
    found = Categorical(z, y).losses()
    assert found[0] == pytest.approx(float(F.cross_entropy(z[0, [0, 2]], y[0, [0, 2]])))
    assert found[1] == 0.0  # nothing kept: no loss, no NaN
    torch.testing.assert_close(found[2:], Categorical(z[2:], y[2:]).losses())


@pytest.mark.parametrize("ignored", [-100, -1, 2, 99])
def test_the_ignored_index_is_a_choice(ignored):
    z, y = logits((4, 3)), classes((4, 3), 2)
    expected = Categorical(z[:, :2], y[:, :2]).losses()
    y[:, 2] = ignored
    torch.testing.assert_close(Categorical(z, y, ignore_index=ignored).losses(), expected)


def test_ignored_samples_without_positions_have_no_loss():
    z, y = logits((4,)), classes((4,))
    y[1] = -100
    found = Categorical(z, y).losses()
    assert found[1] == 0.0 and found[0] == F.cross_entropy(z[0], y[0])


# Draws.


def test_categorical_draws_have_the_probabilities_of_the_model():
    """20,000 draws, every frequency within five standard deviations."""
    z = logits((2, 3)).repeat(10_000, 1, 1)
    drawn = Categorical(z, torch.zeros(20_000, 3, dtype=torch.int64)).sample(
        torch.Generator().manual_seed(3)
    )
    assert drawn.shape == (20_000, 3) and not drawn.is_floating_point()
    found = F.one_hot(drawn.view(10_000, 2, 3), 4).double().mean(0)
    p = z[:2].softmax(-1)
    assert ((found - p).abs() < 5 * (p * (1 - p) / 10_000).sqrt()).all()


def test_ignored_positions_stay_ignored_in_draws():
    y = torch.tensor([[0, -100], [-100, 1]])
    drawn = Categorical(logits((2, 2)), y).sample(torch.Generator().manual_seed(0))
    assert ((drawn == -100) == (y == -100)).all()


def test_gaussian_draws_have_mean_and_deviation():
    mean, std = normal((1, 2)), torch.tensor([0.5, 2.0], dtype=torch.float64)
    draws = Gaussian(mean.repeat(20_000, 1), torch.zeros(20_000, 2, dtype=torch.float64), std)
    found = draws.sample(torch.Generator().manual_seed(3))
    assert ((found.mean(0) - mean[0]).abs() < 5 * std / 20_000**0.5).all()
    assert ((found.std(0) / std - 1).abs() < 5 / 40_000**0.5).all()


LIKELIHOODS = {
    "categorical": lambda z: Categorical(z, classes(z.shape[:-1])),
    "gaussian": lambda z: Gaussian(z, torch.zeros_like(z)),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_draws_and_noise_follow_the_generator_and_carry_no_graph(name):
    made = LIKELIHOODS[name](logits((50,)).requires_grad_())
    for draw in (made.sample, made.noise):
        first, second = (draw(torch.Generator().manual_seed(2)) for _ in range(2))
        assert torch.equal(first, second) and not first.requires_grad
        assert not torch.equal(first, draw(torch.Generator().manual_seed(3)))
        torch.manual_seed(4)
        snapshot = draw()
        torch.manual_seed(4)
        assert torch.equal(snapshot, draw())


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_labels_that_are_drawn_take_the_place_of_the_data_s_in_a_copy(name):
    made = LIKELIHOODS[name](logits((50,)).requires_grad_())
    before = made.targets.clone()
    drawn = made.drawn(torch.Generator().manual_seed(2))
    assert torch.equal(drawn.targets, made.sample(torch.Generator().manual_seed(2)))
    assert torch.equal(made.targets, before) and not torch.equal(drawn.targets, before)
    assert drawn.parameters is made.parameters and drawn.losses().requires_grad


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_noise_is_balanced_signs(name):
    made = LIKELIHOODS[name](logits((5000,)))
    noise = made.noise(torch.Generator().manual_seed(0))
    assert noise.shape == made.parameters.shape and noise.dtype == torch.float64
    assert set(noise.unique().tolist()) == {-1.0, 1.0}
    assert noise.mean().abs() < 5 / noise.numel() ** 0.5
    between = (noise[:, :-1] * noise[:, 1:]).mean()
    assert between.abs() < 5 / noise.numel() ** 0.5


# The root of the Hessian.


def columns(likelihood):
    """S of every sample, (B, f, f), from unit vectors."""
    return torch.stack([likelihood.root(unit).flatten(1) for unit in likelihood.basis()], -1)


def curvature(make, f):
    """∇² of a sample's loss in its own logits or means, (B, f, f)."""
    size = f[0].numel()
    return torch.stack(
        [
            hessian(lambda v, i=i: make(v.unsqueeze(0), i).losses()[0])(f[i]).reshape(size, size)
            for i in range(len(f))
        ]
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_s_s_transposed_is_the_hessian_of_the_categorical_loss(shape):
    """Times w: a loss averaged over positions has w in its Hessian, and w² in E[∇ℓ ∇ℓᵀ]."""
    z, y = logits(shape), classes(shape)
    if len(shape) > 1:
        y[0].view(-1)[0] = -100
    kept = (y != -100).flatten(1).sum(1) if len(shape) > 1 else torch.ones(5)
    s = columns(Categorical(z, y))
    expected = curvature(lambda v, i: Categorical(v, y[i : i + 1]), z) / kept.view(-1, 1, 1)
    torch.testing.assert_close(s @ s.mT, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("std", [1.0, 0.3, torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)])
@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3), (5, 1)])
def test_s_s_transposed_is_the_hessian_of_the_gaussian_loss(shape, std):
    """Times w, the same."""
    std = std if shape[-1] == 3 or not isinstance(std, torch.Tensor) else std[:1]
    mean, y = normal(shape), normal(shape, 1)
    s = columns(Gaussian(mean, y, std))
    expected = curvature(lambda v, i: Gaussian(v, y[i : i + 1], std), mean) / mean[0].numel()
    torch.testing.assert_close(s @ s.mT, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (5, 2)])
def test_s_s_transposed_is_the_covariance_of_the_score(shape):
    """E_ŷ[∇ℓ ∇ℓᵀ] over all labels, with their probabilities: the Fisher information itself."""
    z = logits(shape)
    s = columns(Categorical(z, classes(shape)))
    expected = torch.zeros_like(s)
    for labels in torch.cartesian_prod(*[torch.arange(4)] * z[0, ..., 0].numel()):
        labels = labels.reshape(1, *shape[1:]).expand(shape)
        leaf = z.clone().requires_grad_()
        g = torch.autograd.grad(Categorical(leaf, labels).losses().sum(), leaf)[0].flatten(1)
        p = z.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).flatten(1).sum(1).exp()
        expected += p.view(-1, 1, 1) * g.unsqueeze(2) * g.unsqueeze(1)
    torch.testing.assert_close(s @ s.mT, expected, rtol=1e-10, atol=1e-12)


def test_s_s_transposed_is_the_covariance_of_the_gaussian_score():
    """E_ŷ[∇ℓ ∇ℓᵀ] from 100,000 draws: diagonal, within five standard deviations."""
    mean, std = normal((1, 2)).repeat(100_000, 1).requires_grad_(), 0.5
    made = Gaussian(mean, torch.zeros_like(mean), std)
    drawn = made.sample(torch.Generator().manual_seed(0))
    g = torch.autograd.grad(Gaussian(mean, drawn, std).losses().sum(), mean)[0]
    s = columns(Gaussian(mean[:1], drawn[:1], std))[0]
    found, expected = g.T @ g / len(g), s @ s.T
    assert (found - expected).abs().max() < 5 * 2**0.5 * expected.max() / len(g) ** 0.5


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_root_is_linear_in_the_noise_and_smooth_in_the_logits(name):
    z = logits((3,)).requires_grad_()
    made = LIKELIHOODS[name](z)
    a, b = normal(z.shape, 5), normal(z.shape, 6)
    torch.testing.assert_close(made.root(2 * a - b), 2 * made.root(a) - made.root(b))
    if name == "categorical":
        assert torch.autograd.gradcheck(lambda z: Categorical(z, classes((3,))).root(a), z)


def test_root_at_certainty_is_zero_and_has_no_nan():
    z = torch.tensor([[200.0, 0.0, -200.0]], dtype=torch.float64, requires_grad=True)
    root = Categorical(z, torch.tensor([0])).root(torch.ones_like(z))
    slope = torch.autograd.grad(root.square().sum(), z)[0]
    assert root.abs().max() < 1e-40 and slope.isfinite().all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_basis_has_a_unit_vector_for_every_place(name):
    made = LIKELIHOODS[name](logits((3, 2)))
    units = torch.stack([unit[0].flatten() for unit in made.basis()])
    assert torch.equal(units, torch.eye(8, dtype=torch.float64))
    assert all(unit.shape == (3, 2, 4) for unit in made.basis())


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_empty_batches(name):
    made = LIKELIHOODS[name](logits((0,)))
    assert made.losses().shape == (0,)
    assert made.root(made.noise()).shape == (0, 4) and list(made.basis()) == []


# Bad input.

Z, Y = logits((5,)), classes((5,))
ERRORS = {
    "classes second": (lambda: Categorical(logits((5, 3)).mT, classes((5, 3))), ValueError, "mov"),
    "one dimension": (lambda: Categorical(Z[0], Y[0]), ValueError, r"received \(4,\) and \(\)"),
    "other shape": (lambda: Categorical(Z, Y[:4]), ValueError, r"\(5, 4\) and \(4,\)"),
    "probabilities": (lambda: Categorical(Z, Z.softmax(-1)), ValueError, r"targets \(B, …\)"),
    "float targets": (lambda: Categorical(Z, Y.double()), TypeError, r"float64.*\.long\(\)"),
    "gaussian shapes": (
        lambda: Gaussian(Z, Z[:, :3]),
        ValueError,
        r"one shape.*\(5, 4\) and \(5, 3\)",
    ),
    "gaussian scalar": (lambda: Gaussian(Z.sum(), Z.sum()), ValueError, r"received \(\) and \(\)"),
    "std 0": (lambda: Gaussian(Z, Z, 0.0), ValueError, "std > 0, received 0.0"),
    "std negative": (lambda: Gaussian(Z, Z, torch.tensor([1.0, 1, 1, -1])), ValueError, "std > 0"),
    "std nan": (lambda: Gaussian(Z, Z, float("nan")), ValueError, "std > 0, received nan"),
    "learned std": (
        lambda: Gaussian(Z, Z, torch.ones(4, requires_grad=True)),
        ValueError,
        r"not learned.*std\.detach\(\)",
    ),
    "abstract": (lambda: Likelihood(), TypeError, "abstract"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_refused_with_what_was_received(name):
    make, error, words = ERRORS[name]
    with pytest.raises(error, match=rf"(?s){words}"):
        make()
