"""CIFAR-10: 32×32 colour images; the original, or where that is not to be had its JPEG copy."""

import io
import pickle
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy

from f3eo.bench.tasks.data.files import check, fetch, folder, found, readable

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE, BATCHES, JPEG = "cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar10-jpeg.npz"
HASHES = {
    "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "md5:40351d587109b95175f43aff81a1287e",
}
JPEG_HASH = "sha256:7c2c50b77218d8235ffc3e13c56c93d96bc7f5d8969653865e67d5f241365cca"
"""Of the arrays of the JPEG copy, one after the other in the order of `_jpeg`."""


class Images(NamedTuple):
    """Images (N, 32, 32, 3) and labels (N,), bytes both, to train on and to test."""

    train: tuple[numpy.ndarray, numpy.ndarray]
    test: tuple[numpy.ndarray, numpy.ndarray]
    source: str


def cifar10(train: int = 50_000, test: int = 10_000) -> Images:
    """The first images of either part, from whichever form the folder holds, or downloaded.

    Args:
        train, test: how many of each; default all.

    Raises:
        FileNotFoundError: in the folder there is no form of it, or the download failed.
        ValueError: a wrong checksum.
    """
    root = folder()
    if root is None:
        path = fetch(URL, ARCHIVE)
    else:
        path = found(root, f"{BATCHES}/test_batch", ARCHIVE, JPEG)
    if path.name == JPEG:
        return _jpeg(path, train, test)
    return _original(_members(path), train, test)


def _members(path: Path) -> dict[str, bytes]:
    """The checked content of every batch, of the archive or beside the one at `path`."""
    if path.name != ARCHIVE:
        data = {name: found(path.parent, name).read_bytes() for name in HASHES}
    else:
        with readable(path), tarfile.open(path) as archive:
            data = {name: _read(archive, f"{BATCHES}/{name}") for name in HASHES}
    for name, hash in HASHES.items():
        check(data[name], hash, path if path.name == ARCHIVE else path.parent / name)
    return data


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


def _original(members: dict[str, bytes], train: int, test: int) -> Images:
    # A pickle can do anything when it is read: these are only read once their checksums are right.
    batches = {name: pickle.loads(data, encoding="bytes") for name, data in members.items()}

    def part(*names: str) -> tuple[numpy.ndarray, numpy.ndarray]:
        rows = numpy.concatenate([batches[name][b"data"] for name in names])
        labels = numpy.concatenate([batches[name][b"labels"] for name in names])
        return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(numpy.uint8)

    (x, y), (unseen, answers) = part(*list(HASHES)[:5]), part("test_batch")
    return Images((x[:train], y[:train]), (unseen[:test], answers[:test]), "CIFAR-10, original")


def _jpeg(path: Path, train: int, test: int) -> Images:
    from PIL import Image  # here: needed for this form alone

    with readable(path), numpy.load(path) as file:
        arrays = {
            f"{part}_{kind}": file[f"{part}_{kind}"]
            for part in ("train", "test")
            for kind in ("jpeg", "offset", "label")
        }
    check(b"".join(array.tobytes() for array in arrays.values()), JPEG_HASH, path)

    def decoded(part: str, size: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        data, ends = arrays[f"{part}_jpeg"].tobytes(), arrays[f"{part}_offset"].tolist()
        files = (data[start:end] for start, end in pairwise(ends[: size + 1]))
        pixels = [numpy.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
        return numpy.stack(pixels), arrays[f"{part}_label"][:size]

    return Images(
        decoded("train", train),
        decoded("test", test),
        "CIFAR-10, JPEG-compressed copy: lossy, not comparable with published figures",
    )
