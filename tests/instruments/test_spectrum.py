"""Eigenvalues, log det and effective dimension against dense eigenvalues in float64."""

import pytest
import torch

from cases import case
from f3eo.instruments import effective_dimension, log_det, spectrum
from f3eo.instruments.density import Density, exact_density
from f3eo.instruments.lanczos import lanczos
from instruments.spectra import flat, matrix, parts, seeded

METHODS = [(of, m) for of in ("fisher", "gauss_newton") for m in ("gram", "dense", "auto")]
METHODS += [("hessian", "dense"), ("hessian", "auto")]


def dense_sums(values, alpha, factor):
    """log det and effective dimension of these eigenvalues."""
    scaled = factor * values
    return float((scaled + alpha).log().sum()), float((scaled / (scaled + alpha)).sum())


@pytest.mark.parametrize(("of", "method"), METHODS)
@pytest.mark.parametrize("name", ["mlp", "sequence_first"])
def test_exact_spectra_are_the_dense_ones(name, of, method):
    row = case(name)
    m = matrix(row, of)
    expected = torch.linalg.eigvalsh(m).flip(0)
    found = spectrum(row.model, row.drawn, parts(row), of=of, method=method, top=3)
    assert found.exact and found.samples == len(row.batch[0]) and found.size == len(m)
    known = len(found.values)
    assert (found.values - expected[:known]).abs().max() < 1e-12 * expected[0]
    assert expected[known:].abs().sum() < 1e-11 * expected[0]
    assert (found.top - expected[:3]).abs().max() < 1e-12 * expected[0]
    for value, vector in zip(found.top, found.vectors, strict=True):
        v = flat(vector)
        assert abs(float(v.norm()) - 1) < 1e-12
        assert (m @ v - value * v).norm() < 1e-12 * expected[0]
    alpha = 0.1 + 6 * max(0.0, -float(expected[-1]))
    determinant, dimension = dense_sums(expected, alpha, 6.0)
    assert abs(found.log_det(alpha, factor=6.0).value - determinant) < 1e-9
    assert abs(found.effective_dimension(alpha, factor=6.0).value - dimension) < 1e-9
    assert found.log_det(alpha, factor=6.0).error == 0


def test_the_default_is_the_smaller_exact_one_and_lanczos_above(monkeypatch):
    row = case("mlp")
    assert spectrum(row.model, row.drawn, parts(row), top=0).method == "gram"
    wide = [tuple(t.repeat(20, *[1] * (t.ndim - 1)) for t in row.batch)]
    assert spectrum(row.model, row.drawn, wide, top=0).method == "dense"
    monkeypatch.setattr("f3eo.instruments.decomposition.EXACT", 5)
    assert spectrum(row.model, row.drawn, parts(row), top=0, steps=2).method == "lanczos"


@pytest.mark.parametrize("of", ["fisher", "gauss_newton", "hessian"])
def test_lanczos_finds_the_top_and_says_how_well(of):
    row = case("cnn_1d")
    m = matrix(row, of)
    expected = torch.linalg.eigvalsh(m).flip(0)
    options = {"of": of, "method": "lanczos", "top": 2, "probes": 2}
    found = spectrum(row.model, row.drawn, parts(row), **options, generator=seeded())
    assert not found.exact
    assert (found.top - expected[:2]).abs().max() < 1e-9
    for value, vector, rest in zip(found.top, found.vectors, found.residuals, strict=True):
        true = float((m @ flat(vector) - value * flat(vector)).norm())
        assert abs(true - float(rest)) < 1e-9
    short = spectrum(row.model, row.drawn, parts(row), **options, steps=3, generator=seeded())
    for value, rest in zip(short.top, short.residuals, strict=True):
        assert (expected - value).abs().min() <= rest + 1e-12
    assert of == "fisher" or short.residuals[1] > 1e-3  # not converged, and it says so
    with pytest.raises(ValueError, match="nodes and weights, not the eigenvalues"):
        _ = found.values


def test_quadrature_has_the_mean_of_the_trace_and_its_error():
    """Over many draws: no bias, and a standard error that is the spread between draws."""
    row = case("mlp")
    m = matrix(row, "hessian")
    values = torch.linalg.eigvalsh(m)
    alpha = 0.5 - 2 * float(values[0])
    expected, _ = dense_sums(values, alpha, 1.0)
    generator = seeded()
    draws = []
    for _ in range(60):
        spaces = []
        for _ in range(4):
            z = torch.randint(0, 2, (len(m),), generator=generator).double() * 2 - 1
            spaces.append(lanczos(lambda v: m @ v, z, 40))
        nodes = torch.stack([s.nodes for s in spaces])
        weights = len(m) * torch.stack([s.weights() for s in spaces])
        draws.append(Density(nodes, weights, len(m), exact=False).log_det(alpha))
    found = torch.tensor([d.value for d in draws])
    claimed = torch.tensor([d.error for d in draws]).square().mean().sqrt()
    assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / 60**0.5
    assert 0.75 < float(claimed / found.std()) < 1.35


def test_log_det_and_effective_dimension_by_lanczos_are_within_their_error():
    row = case("cnn_1d")
    values = torch.linalg.eigvalsh(matrix(row, "gauss_newton"))
    expected = dense_sums(values, 0.01, 5.0)
    for function, truth in zip((log_det, effective_dimension), expected, strict=True):
        found = function(
            row.model,
            row.drawn,
            parts(row),
            0.01,
            factor=5.0,
            of="gauss_newton",
            method="lanczos",
            probes=8,
            generator=seeded(3),
        )
        assert 0 < found.error < 0.2 * abs(truth)
        assert abs(found.value - truth) < 3 * found.error
        exact = function(row.model, row.drawn, parts(row), 0.01, factor=5.0, of="gauss_newton")
        assert abs(exact.value - truth) < 1e-9 and exact.error == 0


def test_lanczos_keeps_an_orthonormal_basis_and_ends_where_the_space_is_invariant():
    q, _ = torch.linalg.qr(torch.randn(30, 30, generator=seeded(), dtype=torch.float64))
    spread = torch.logspace(-9, 3, 30, dtype=torch.float64)  # where plain Lanczos loses it
    m = q @ spread.diag() @ q.mT
    space = lanczos(lambda v: m @ v, torch.ones(30, dtype=torch.float64), 30)
    eye = torch.eye(len(space.basis), dtype=torch.float64)
    assert (space.basis @ space.basis.mT - eye).abs().max() < 1e-13
    assert abs(float(space.nodes[-1]) - 1e3) < 1e-9
    rank_two = q[:2].mT @ q[:2]
    short = lanczos(lambda v: rank_two @ v, torch.ones(30, dtype=torch.float64), 30)
    assert len(short.nodes) == 2 and short.rest == 0
    assert torch.allclose(short.nodes, torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_one_probe_has_no_error_to_show():
    node = torch.ones(1, 1, dtype=torch.float64)
    assert torch.tensor(Density(node, 3 * node, 3, exact=False).log_det(1.0).error).isnan()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "arnoldi"}, "method is one of 'auto', .* received 'arnoldi'"),
        ({"top": -1}, "top is an integer >= 0, received -1"),
        ({"steps": 0}, "steps is an integer >= 1, received 0"),
        ({"probes": 1.5}, "probes is an integer >= 1, received 1.5"),
        ({"of": "hessian", "method": "gram"}, "sums of squares"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    row = case("mlp")
    with pytest.raises(ValueError, match=message):
        spectrum(row.model, row.drawn, parts(row), **options)


def test_what_has_no_logarithm_is_refused():
    density = exact_density(torch.tensor([2.0, -1.0], dtype=torch.float64), 4)
    for measure in (density.log_det, density.effective_dimension):
        with pytest.raises(ValueError, match=r"eigenvalue is -3, so alpha must be above 3"):
            measure(2.0, factor=3.0)
    for value in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="alpha is a finite number > 0"):
            density.effective_dimension(value)
        with pytest.raises(ValueError, match="factor is a finite number > 0"):
            density.log_det(1.0, factor=value)
