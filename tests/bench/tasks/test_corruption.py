"""Corrupted inputs, each against its closed form."""

import pytest
import torch

from f3eo.bench.tasks import TASKS
from f3eo.bench.tasks.corruption import (
    IMAGES,
    TABLE,
    blur,
    brightness,
    contrast,
    deviation,
    flat,
    noise,
    rotation,
)

SEED = torch.Generator()


def images(n: int = 6, channels: int = 2, side: int = 9) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def test_noise_is_in_units_of_each_feature():
    x = torch.randn(4000, 3) * torch.tensor([1.0, 10.0, 0.0]) + 5
    added = noise(x, SEED.manual_seed(1), 0.5) - x
    assert added.mean(0).abs().max() < 0.3
    assert added.std(0).tolist() == pytest.approx([0.5, 5.0, 0.0], rel=0.05)
    again = noise(x, SEED.manual_seed(1), 0.5) - x
    assert torch.equal(added, again)
    channels = images(500) * torch.tensor([1.0, 4.0]).view(1, 2, 1, 1)
    added = noise(channels, SEED, 0.1) - channels
    assert added.std((0, 2, 3)).tolist() == pytest.approx([0.1, 0.4], rel=0.05)


def test_a_point_is_blurred_to_a_gaussian_whose_size_follows_the_image():
    x = torch.zeros(1, 1, 41, 41)
    x[0, 0, 20, 20] = 1
    found = blur(x, SEED, 2 / 41)[0, 0].double()
    place = torch.arange(41).double() - 20
    row = torch.exp(-(place**2) / 8)
    expected = torch.outer(row, row) / row.sum() ** 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    plain = torch.full((2, 3, 8, 8), 2.5)
    torch.testing.assert_close(blur(plain, SEED, 0.1), plain)


def test_contrast_and_brightness_change_spread_and_mean():
    x = images()
    low = contrast(x, SEED, 0.25)
    mean = x.mean((1, 2, 3))
    torch.testing.assert_close(low.mean((1, 2, 3)), mean)
    torch.testing.assert_close(low - mean.view(-1, 1, 1, 1), 0.25 * (x - mean.view(-1, 1, 1, 1)))
    bright = brightness(x, SEED, 2.0)
    torch.testing.assert_close(bright - x, 2 * deviation(x).expand_as(x))
    assert deviation(x).flatten().tolist() == pytest.approx(
        [x[:, c].std(correction=0).item() for c in range(2)]
    )


def test_images_are_turned_one_to_each_side():
    x = images()
    turned = rotation(x, SEED, 90.0)
    torch.testing.assert_close(turned[::2], torch.rot90(x[::2], 1, (2, 3)), rtol=0, atol=1e-5)
    torch.testing.assert_close(turned[1::2], torch.rot90(x[1::2], -1, (2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("corrupt", [*IMAGES, *TABLE])
def test_shapes_stay_and_the_inputs_are_not_changed(corrupt):
    x = images()
    before = x.clone()
    found = corrupt(x, SEED.manual_seed(0))
    assert found.shape == x.shape and found.dtype == x.dtype and found.isfinite().all()
    assert torch.equal(x, before) and not torch.allclose(found, x)


def test_each_kind_comes_mild_and_severe():
    x = images(20, 1, 28)
    moved = [(corrupt(x, SEED.manual_seed(0)) - x).square().mean() for corrupt in IMAGES]
    assert all(mild < severe for mild, severe in zip(moved[::2], moved[1::2], strict=True))


def test_rows_are_corrupted_as_the_images_they_hold():
    x = images(4, 1, 8)
    for on_rows, corrupt in zip(flat(IMAGES, 1, 8, 8), IMAGES, strict=True):
        found = on_rows(x.flatten(1), SEED.manual_seed(2))
        assert torch.equal(found, corrupt(x, SEED.manual_seed(2)).flatten(1))


def test_images_and_tables_are_corrupted_and_texts_are_not():
    kinds = {name: len(task.corruptions) for name, task in TASKS.items()}
    assert kinds["fashion-cnn-noise40"] == kinds["large-batch-digits"] == kinds["cifar10"] == 10
    assert kinds["wine"] == kinds["mnist1d-cnn"] == kinds["breast-cancer"] == 2
    assert kinds["shakespeare-char"] == kinds["modular-addition"] == 0
