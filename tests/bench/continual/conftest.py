"""Small data in place of the files that streams read."""

from collections.abc import Iterator
from functools import cache

import numpy
import pytest

from bench.continual.blobs import BLOBS
from f3eo.bench.continual.streams import STREAMS, images, text
from f3eo.bench.tasks.data import FASHION

ALPHABET = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TRAIN, TEST = 80, 40
"""Numbers of small images, of which each digit has its tenth."""


@cache
def random_images(seed: int, number: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    pixels = numpy.random.default_rng(seed).integers(0, 256, (number, 28, 28), dtype=numpy.uint8)
    return pixels, (numpy.arange(number) % 10).astype(numpy.uint8)


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Random images with labels 0, 1, … 9, 0, …; a random text of the right characters."""

    def drawn(files, part):
        number = TRAIN if part == "train" else TEST
        return random_images(number + (files is FASHION), number)

    letters = numpy.random.default_rng(0).choice(list(ALPHABET), 9_000)
    written = ALPHABET + "".join(letters)
    monkeypatch.setattr(images, "images", drawn)
    monkeypatch.setattr(text, "shakespeare", lambda: written)
    monkeypatch.setattr(text, "WINDOWS", 100)
    monkeypatch.setattr(text, "TEST_WINDOWS", 20)
    for source in (images.mnist, images.fashion):
        source.cache_clear()
    yield
    for source in (images.mnist, images.fashion):
        source.cache_clear()


@pytest.fixture
def blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small stream beside the others."""
    monkeypatch.setitem(STREAMS, "blobs", BLOBS)  # type: ignore[arg-type]
