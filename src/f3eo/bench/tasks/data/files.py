"""One file: from the folder F3EO_DATA names, else downloaded into a cache; checked, unpacked.

The checksum is that of the decompressed content, so that it does not matter who packed it.
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
"""Environment variable: a folder in torchvision's layout; nothing is downloaded while it is set."""

CURE = "remove it, and put the original in its place or let it be downloaded again"


class File(NamedTuple):
    """A file of a data set.

    Args:
        path: below the folder, without ".gz".
        url: where it is downloaded from.
        hash: of its decompressed content, as "sha256:" or "md5:" and hex digits.
    """

    path: str
    url: str
    hash: str


def folder() -> Path | None:
    """The folder that F3EO_DATA names; None if it is not set."""
    named = os.environ.get(FOLDER)
    return Path(named).expanduser() if named else None


def content(file: File) -> bytes:
    """The decompressed and checked content of a file.

    Raises:
        FileNotFoundError: not in the folder, or not to be had from its address.
        ValueError: the content is another one.
    """
    root = folder()
    path = _fetched(file) if root is None else found(root, file.path, file.path + ".gz")
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        with readable(path):
            data = gzip.decompress(data)
    check(data, file.hash, path)
    return data


def found(root: Path, *names: str) -> Path:
    """The first of these files that is in the folder.

    Raises:
        FileNotFoundError: none is.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(
        f"{FOLDER} is {str(root)!r}, and there is none of {', '.join(names)} in it; put one of "
        f"them there, or unset {FOLDER} to download it"
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """An archive that cannot be unpacked, as one cut off in a download, is a ValueError."""
    try:
        yield
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); {CURE}") from error


def check(data: bytes, hash: str, path: Path) -> None:
    """Compare a content with its checksum.

    Raises:
        ValueError: they differ.
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
    """A file in the cache, downloaded if it is not there; its content is still to be checked.

    Raises:
        FileNotFoundError: the download failed.
    """
    cache = pooch.os_cache("f3eo")
    pooch.get_logger().setLevel("WARNING")  # it would ask for a checksum of what is packed
    try:
        return Path(pooch.retrieve(url, known_hash=None, fname=name, path=cache))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise FileNotFoundError(
            f"{url} could not be downloaded to {cache} ({error}); download it elsewhere, put it "
            f"into a folder as {name}, and set {FOLDER} to that folder"
        ) from error
