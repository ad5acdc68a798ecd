"""Scores that find wrong labels, and the area under their curve."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense import flat
from docs.pages import table
from f3eo import ByRow, Elementwise
from f3eo.instruments import area, memorisation
from instruments.truths import MODELS, close, dense


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_single_samples_in_order(name):
    d = dense(name)
    found = memorisation(d.model, d.closure, d.data)
    close(found.losses, d.losses)
    close(found.norms, d.gradients.norm(dim=1))


def test_in_a_metric():
    d = dense("mlp", weighted=True)
    found = memorisation(d.model, d.closure, d.data, metric=Elementwise())
    lengths = flat([p.detach().abs() for p in d.model.parameters()])
    close(found.norms, (lengths * d.gradients).norm(dim=1))


def test_the_area_counts_pairs():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = torch.randint(5, (12,), generator=generator).double()  # with ties
        flags = torch.randperm(12, generator=generator) < 5
        above = scores[flags][:, None] - scores[~flags]
        close(area(scores, flags), ((above > 0).double() + 0.5 * (above == 0)).mean())
    assert area(torch.tensor([0.0, 1, 2]), torch.tensor([False, False, True])) == 1
    assert area(torch.zeros(4), torch.tensor([False, False, True, True])) == 0.5


def test_bad_input_of_the_area():
    scores, flags = torch.rand(3), torch.tensor([True, False, True])
    for bad, error in (
        ((scores[:2], flags), r"\(2,\) and \(3,\)"),
        ((scores, flags.int()), "int32"),
        ((scores, flags | True), "received 3 flagged of 3, 0 scores NaN"),
        ((scores * torch.nan, flags), "3 scores NaN"),
    ):
        with pytest.raises(ValueError, match=error):
            area(*bad)


def noisy(labels, classes, share, generator):
    """Labels of which a share is replaced by another class, and where."""
    flags = torch.rand(len(labels), generator=generator) < share
    shift = torch.randint(1, classes, labels.shape, generator=generator)
    return torch.where(flags, (labels + shift) % classes, labels), flags


def areas(x, y, flags, classes, steps):
    """Areas of losses, norms and norms in the units of the weights, after a little training."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure(x, y):
        return F.cross_entropy(model(x), y, reduction="none")

    for step in range(steps):
        part = slice(64 * step % len(x), 64 * step % len(x) + 64)
        optimizer.zero_grad()
        closure(x[part], y[part]).mean().backward()
        optimizer.step()
    data = list(zip(x.split(256), y.split(256), strict=True))
    plain = memorisation(model, closure, data)
    scaled = memorisation(model, closure, data, metric=ByRow())
    return [area(s, flags) for s in (plain.losses, plain.norms, scaled.norms)]


def near(found, name):
    """To the digits on the page, and a little for other kernels."""
    (row,) = [row for row in table("instruments.md", "data") if row[0] == name]
    assert found == pytest.approx([float(cell) for cell in row[1:]], abs=0.01)


def test_they_find_wrong_labels_of_generated_data():
    """40 % of the labels of five clouds."""
    generator = torch.Generator().manual_seed(1)
    centres = 2 * torch.randn(5, 20, generator=generator)
    true = torch.randint(5, (1024,), generator=generator)
    x = centres[true] + 1.5 * torch.randn(1024, 20, generator=generator)
    y, flags = noisy(true, 5, 0.4, generator)
    near(areas(x, y, flags, 5, steps=64), "five clouds")


FOUND = Path(os.environ.get("F3EO_DATA", "none"))


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_they_find_wrong_labels_of_pictures(name):
    """40 % of 4,000 labels, after two passes over them."""
    if not (FOUND / name).exists():
        pytest.skip(f"no {name} in F3EO_DATA={FOUND}")
    from f3eo.bench.tasks.data import FASHION, MNIST, images

    files = {"FashionMNIST": FASHION, "MNIST": MNIST}[name]
    x, y = (torch.tensor(part[:4000]) for part in images(files, "train"))
    x = (x.flatten(1).float() / 255 - 0.286) / 0.353
    y, flags = noisy(y.long(), 10, 0.4, torch.Generator().manual_seed(0))
    near(areas(x, y, flags, 10, steps=124), name)
