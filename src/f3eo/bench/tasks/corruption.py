"""Corrupted inputs: kinds of ImageNet-C in two severities, and noise on the features of a table.

All sizes are relative to the inputs, so that they serve images of any range: tasks standardise
their pixels, and nothing is clipped. Departures from the source: five kinds of nineteen, two
severities of five, and strengths of our own.

Source: Hendrycks and Dietterich 2019, arXiv 1903.12261.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from scipy import ndimage
from torch import Tensor

Corruption = Callable[[Tensor, torch.Generator], Tensor]
"""(inputs (N, …), generator) -> inputs of the same shape; most draw nothing from it."""


def noise(x: Tensor, generator: torch.Generator, size: float) -> Tensor:
    """x + size · s ε, ε standard normal.

    Args:
        x: images (N, C, H, W) or tables (N, D).
        generator: draws ε.
        size: in units of s, the deviation of each channel or feature over x.
    """
    draw = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return x + size * deviation(x) * draw


def blur(x: Tensor, generator: torch.Generator, size: float) -> Tensor:
    """x smoothed by a Gaussian, with its edge repeated outside.

    Args:
        x: images (N, C, H, W).
        generator: not used.
        size: deviation of the Gaussian as a share of the height.
    """
    pixels = size * x.shape[2]
    smooth = ndimage.gaussian_filter(x.cpu().numpy(), (0, 0, pixels, pixels), mode="nearest")
    return torch.from_numpy(smooth).to(x)


def contrast(x: Tensor, generator: torch.Generator, factor: float) -> Tensor:
    """m + factor · (x − m), m the mean of each image.

    Args:
        x: images (N, C, H, W).
        generator: not used.
        factor: below 1 for less contrast.
    """
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + factor * (x - mean)


def brightness(x: Tensor, generator: torch.Generator, size: float) -> Tensor:
    """x + size · s, with s as in `noise`.

    Args:
        x: images (N, C, H, W).
        generator: not used.
        size: above 0 for brighter images.
    """
    return x + size * deviation(x)


def rotation(x: Tensor, generator: torch.Generator, degrees: float) -> Tensor:
    """Every other image turned to the left, the others to the right, with bilinear interpolation.

    Args:
        x: images (N, C, H, W).
        generator: not used.
        degrees: the angle.
    """
    turned = x.cpu().numpy().copy()
    for start, angle in ((0, degrees), (1, -degrees)):
        turned[start::2] = ndimage.rotate(
            turned[start::2], angle, axes=(3, 2), reshape=False, order=1, mode="nearest"
        )
    return torch.from_numpy(turned).to(x)


def deviation(x: Tensor) -> Tensor:
    """The standard deviation of each channel or feature, dimension 1, in a shape to add to x."""
    others = [dim for dim in range(x.dim()) if dim != 1]
    return x.std(others, correction=0, keepdim=True)


IMAGES: Sequence[Corruption] = (
    *(partial(noise, size=size) for size in (0.3, 0.6)),
    *(partial(blur, size=size) for size in (0.03, 0.06)),
    *(partial(contrast, factor=factor) for factor in (0.5, 0.25)),
    *(partial(brightness, size=size) for size in (0.5, 1.0)),
    *(partial(rotation, degrees=degrees) for degrees in (10.0, 20.0)),
)
TABLE: Sequence[Corruption] = tuple(partial(noise, size=size) for size in (0.3, 0.6))


def flat(corruptions: Sequence[Corruption], *shape: int) -> Sequence[Corruption]:
    """The same for images that a task gives as rows (N, C · H · W).

    Args:
        corruptions: of images.
        shape: C, H, W.
    """
    return tuple(partial(_on_rows, corrupt=corrupt, shape=shape) for corrupt in corruptions)


def _on_rows(
    x: Tensor, generator: torch.Generator, corrupt: Corruption, shape: tuple[int, ...]
) -> Tensor:
    return corrupt(x.unflatten(1, shape), generator).flatten(1)
