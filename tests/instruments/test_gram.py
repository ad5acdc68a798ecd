"""The Gram matrix of per-sample gradients against the loop over single samples."""

import pytest
import torch
from torch import nn

import dense
from cases import MODELS, Case, case
from f3eo import Weighted
from f3eo.instruments import gram
from f3eo.instruments.gram_matrix import BLOCK
from instruments.spectra import gradients, matrix, parts, seeded


@pytest.mark.parametrize("name", MODELS)
def test_inner_products_are_those_of_single_samples(name):
    row = case(name)
    rows = gradients(row)
    assert dense.relative(gram(row.model, row.losses, parts(row)), rows @ rows.mT) < 1e-12


@pytest.mark.parametrize("name", MODELS)
def test_eigenvalues_of_the_factors_of_gauss_newton_are_its_own(name):
    row = case(name)
    found = gram(row.model, row.drawn, parts(row), of="gauss_newton")
    values = torch.linalg.eigvalsh(found / len(row.batch[0])).flip(0)
    expected = torch.linalg.eigvalsh(matrix(row, "gauss_newton")).flip(0)
    rank = min(len(values), len(expected))
    assert (values[:rank] - expected[:rank]).abs().max() < 1e-12 * expected[0]
    assert values[rank:].abs().sum() < 1e-11 * expected[0]


@pytest.mark.parametrize("name", ["mlp", "cnn", "tied"])
@pytest.mark.parametrize("block", [BLOCK, 40])
def test_little_memory_takes_several_sweeps_and_small_blocks(name, block, monkeypatch):
    monkeypatch.setattr("f3eo.instruments.gram_matrix.BLOCK", block)
    row = case(name)
    rows, sweeps = gradients(row), []

    def closure(*batch):
        sweeps.append(1)
        return row.losses(*batch)

    memory = 8 * len(rows) * max(p.numel() for p in row.model.parameters())
    found = gram(row.model, closure, parts(row), memory=memory)
    assert dense.relative(found, rows @ rows.mT) < 1e-12
    assert len(sweeps) > 2


def long_and_embedded() -> Case:
    """Positions enough for gradients in blocks; embeddings that share rows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5)).double()
    index = torch.randint(5, (6, 9), generator=seeded())
    return Case(model, (index, index.roll(1, 1)))


@pytest.mark.parametrize("block", [BLOCK, 40])
def test_layers_with_positions(block, monkeypatch):
    monkeypatch.setattr("f3eo.instruments.gram_matrix.BLOCK", block)
    row = long_and_embedded()
    rows = gradients(row)
    assert dense.relative(gram(row.model, row.losses, parts(row)), rows @ rows.mT) < 1e-12
    x, y = row.batch
    uneven = [(x[:2, :4], y[:2, :4]), (x[2:], y[2:])]  # other lengths in every batch
    singles = [dense.truth(list(row.model.parameters()), row.losses, *b).gradients for b in uneven]
    rows = torch.cat(singles)
    assert dense.relative(gram(row.model, row.losses, uneven), rows @ rows.mT) < 1e-12


def test_weights_are_in_the_matrix():
    row = case("mlp")
    w = torch.tensor([0.0, 2.0, 1.0, 0.5, 3.0, 0.25], dtype=torch.float64)
    rows = gradients(row) * w.sqrt().unsqueeze(1)
    found = gram(row.model, lambda x, y, w: Weighted(row.losses(x, y), w), [(*row.batch, w)])
    assert dense.relative(found, rows @ rows.mT) < 1e-12


def test_a_parameter_that_some_batches_do_not_use():
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(3, 2).double(), nn.Linear(3, 2).double()])
    layers.append(nn.Linear(9, 9).double())  # that none uses
    x = torch.randn(5, 3, dtype=torch.float64)

    def closure(x, which):
        return layers[which](x).square().sum(1)

    found = gram(layers, closure, [(x[:2], 0), (x[2:], 1)], memory=200)
    own = [
        dense.truth(list(layers.parameters()), lambda x, k=k: closure(x, k), part).gradients
        for k, part in ((0, x[:2]), (1, x[2:]))
    ]
    expected = torch.cat(own)
    assert dense.relative(found, expected @ expected.mT) < 1e-12
    assert not found[:2, 2:].any()


def test_what_does_not_fit_is_refused():
    row = case("mlp")
    with pytest.raises(ValueError, match=r"more than memory=8 bytes.*method='lanczos'"):
        gram(row.model, row.losses, parts(row), memory=8)
    with pytest.raises(ValueError, match=r"sums of squares.*received 'hessian'"):
        gram(row.model, row.drawn, parts(row), of="hessian")
    with pytest.raises(TypeError, match="of='fisher' takes losses"):
        gram(row.model, row.losses, parts(row), of="gauss_newton")
    with torch.no_grad():
        row.model[0].weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        gram(row.model, row.losses, parts(row))


def test_coupled_samples_are_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="samples that do not mix"):
        gram(model, lambda x: model(x).square(), [torch.randn(6, 3)])
