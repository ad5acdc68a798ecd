"""Files that are whole or not there, and errors that name their file."""

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROBE = 4096
"""Bytes written to see whether anything can be."""


class Damaged(ValueError):
    """A file that is not what was written into it."""


@contextmanager
def named(path: Path) -> Iterator[None]:
    """OSErrors of what is done meanwhile name this path: those of open files name none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def whole(path: Path, cure: str) -> Iterator[None]:
    """Errors of reading and taking apart a file become one that names it.

    Args:
        path: the file.
        cure: what to do about it, as the end of a sentence.

    Raises:
        Damaged: the content is another than it should be.
    """
    try:
        with named(path):
            yield
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, zlib.error) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise Damaged(f"{path} is damaged ({reason}); {cure}") from error


def prepare(folder: Path) -> None:
    """Make a folder, and see that files can be written there before anything is measured."""
    with named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            _all(probe.fileno(), bytes(PROBE))


def prepare_file(path: Path) -> None:
    """See that a file can be written before anything is measured; what it holds stays.

    Raises:
        ValueError: it is a folder, or in none.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"json must be a file in a folder that exists, got {path}")
    if path.exists():
        with named(path):
            path.open("ab").close()
    if path.is_file() or not path.exists():
        prepare(path.parent)


def write(path: Path, content: str | bytes) -> None:
    """Write a file anew; a reader, or a crash, meets the old one or the new one.

    Args:
        path: what is no ordinary file, as /dev/stdout, is written to and stays.
        content: text becomes UTF-8.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with named(path):
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        target = path.resolve()  # a link stays one
        draft = target.with_name(target.name + ".tmp")
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except OSError:
            with suppress(OSError):
                draft.unlink()  # on a full disk it takes room
            raise


def append(path: Path, line: bytes) -> None:
    """Add a line to a file, on the disk before this returns; where there is no room, none of it."""
    with named(path), path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            _all(file.fileno(), line)
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def read_json(
    path: Path, cure: str, check: Callable[[Any], object] = lambda found: None
) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no file.

    Args:
        path: the file.
        cure: see `whole`.
        check: called with the object; what it raises is damage, too.

    Raises:
        Damaged: something else is in it.
    """
    if not path.exists():
        return {}
    with whole(path, cure):
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise TypeError(f"it must be an object, and is a {type(found).__name__}")
        check(found)
        return found


def _all(descriptor: int, data: bytes) -> None:
    """A file system that fills up takes a part of the data, and says so only by its length."""
    while data:
        data = data[os.write(descriptor, data) :]
