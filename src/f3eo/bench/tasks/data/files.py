"""Read a file of a data set from the folder F3EO_DATA, or download it into a cache.

Checksums are of the decompressed content, since compressed files differ between sources.
"""

import gzip
import hashlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pooch

FOLDER = "F3EO_DATA"
"""Environment variable: a folder in torchvision's layout. If set, nothing is downloaded."""

CURE = "remove it; then put the original there, or let it be downloaded again"
"""Advice in the error about a damaged file."""


class File(NamedTuple):
    """A file of a data set.

    Args:
        path: path below the folder, without ".gz".
        url: address of the download.
        hash: checksum of the decompressed content, "sha256:" or "md5:" and hex digits.
    """

    path: str
    url: str
    hash: str


def data_folder() -> Path | None:
    """The folder in F3EO_DATA; None if it is not set."""
    path = os.environ.get(FOLDER)
    return Path(path).expanduser() if path else None


def read(file: File) -> bytes:
    """The decompressed content of a file, checked.

    Raises:
        FileNotFoundError: the file is not in the folder, or its download failed.
        ValueError: the checksum differs, or the file is damaged.
    """
    root = data_folder()
    path = _fetched(file) if root is None else find(root, file.path, file.path + ".gz")
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        with refuse_damaged(path):
            data = gzip.decompress(data)
    check_hash(data, file.hash, path)
    return data


def find(root: Path, *names: str) -> Path:
    """The path of the first of these files that exists below `root`.

    Raises:
        FileNotFoundError: none of them exists.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(
        f"{FOLDER} is {str(root)!r}, which holds none of {', '.join(names)}; put one of them "
        f"there, or unset {FOLDER} to download it"
    )


@contextmanager
def refuse_damaged(path: Path) -> Iterator[None]:
    """Turn errors of unpacking `path`, e.g. of a truncated download, into a ValueError."""
    try:
        yield
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); {CURE}") from error


def check_hash(data: bytes, hash: str, path: Path) -> None:
    """Refuse data with another checksum.

    Args:
        data: decompressed content.
        hash: expected checksum, as in `File`.
        path: source of the data, for the message.

    Raises:
        ValueError: the checksum differs.
    """
    algorithm, expected = hash.split(":")
    received = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    if received != expected:
        raise ValueError(
            f"the content of {path} has {algorithm} {received}, but it must be {expected}; {CURE}"
        )


def _fetched(file: File) -> Path:
    """The file in the cache, downloaded if it is not there."""
    return fetch(file.url, file.path + (".gz" if file.url.endswith(".gz") else ""))


def fetch(url: str, name: str) -> Path:
    """The path of a file in the cache, downloaded if absent; its content is not checked yet.

    Args:
        url: address of the download.
        name: path below the cache.

    Raises:
        FileNotFoundError: the download failed.
    """
    cache = pooch.os_cache("f3eo")
    pooch.get_logger().setLevel("WARNING")  # at INFO it asks for a checksum of the compressed file
    try:
        return Path(pooch.retrieve(url, known_hash=None, fname=name, path=cache))
    except (OSError, ValueError) as error:  # errors of `requests` are OSErrors
        raise FileNotFoundError(
            f"{url} could not be downloaded to {cache} ({error}); download it elsewhere, put it "
            f"into a folder as {name}, and set {FOLDER} to that folder"
        ) from error
