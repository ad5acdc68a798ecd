"""CIFAR-10 from the original files, or from a JPEG-compressed copy."""

import io
import pickle
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy

from f3eo.bench.tasks.data.files import check_hash, data_folder, fetch, find, refuse_damaged

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
"""Checksum of the concatenated arrays of the JPEG copy, in the order of `_jpeg`."""


class Images(NamedTuple):
    """Training and test images.

    Attributes:
        train, test: images (N, 32, 32, 3) and labels (N,), both uint8.
        source: the form they were read from, in words.
    """

    train: tuple[numpy.ndarray, numpy.ndarray]
    test: tuple[numpy.ndarray, numpy.ndarray]
    source: str


def cifar10(train: int = 50_000, test: int = 10_000) -> Images:
    """The first training and test images, from the folder or downloaded.

    Args:
        train, test: number of images of each part; default all.

    Raises:
        FileNotFoundError: the folder holds no form of the data, or the download failed.
        ValueError: a checksum differs.
    """
    root = data_folder()
    if root is None:
        path = fetch(URL, ARCHIVE)
    else:
        path = find(root, f"{BATCHES}/test_batch", ARCHIVE, JPEG)
    if path.name == JPEG:
        return _jpeg(path, train, test)
    return _original(_members(path), train, test)


def _members(path: Path) -> dict[str, bytes]:
    """The checked content of every batch, from the archive or from the folder of `path`."""
    if path.name != ARCHIVE:
        data = {name: find(path.parent, name).read_bytes() for name in HASHES}
    else:
        with refuse_damaged(path), tarfile.open(path) as archive:
            data = {name: _read(archive, f"{BATCHES}/{name}") for name in HASHES}
    for name, hash in HASHES.items():
        check_hash(data[name], hash, path if path.name == ARCHIVE else path.parent / name)
    return data


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is not a file")
    return file.read()


def _original(members: dict[str, bytes], train: int, test: int) -> Images:
    # Loading a pickle can run any code; these are loaded only after their checksums are verified.
    batches = {name: pickle.loads(data, encoding="bytes") for name, data in members.items()}

    def part(*names: str) -> tuple[numpy.ndarray, numpy.ndarray]:
        rows = numpy.concatenate([batches[name][b"data"] for name in names])
        labels = numpy.concatenate([batches[name][b"labels"] for name in names])
        return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(numpy.uint8)

    (x, y), (unseen, answers) = part(*list(HASHES)[:5]), part("test_batch")
    return Images((x[:train], y[:train]), (unseen[:test], answers[:test]), "CIFAR-10, original")


def _jpeg(path: Path, train: int, test: int) -> Images:
    from PIL import Image  # imported here because only this form needs it

    with refuse_damaged(path), numpy.load(path) as file:
        arrays = {
            f"{part}_{kind}": file[f"{part}_{kind}"]
            for part in ("train", "test")
            for kind in ("jpeg", "offset", "label")
        }
    check_hash(b"".join(array.tobytes() for array in arrays.values()), JPEG_HASH, path)

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
