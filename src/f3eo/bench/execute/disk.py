"""Atomic writing of files, and errors that name their file."""

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from f3eo.atomic import replaced

PROBE = 4096
"""Bytes written to test whether a folder is writable."""


class Damaged(ValueError):
    """A file whose content is not what f3eo writes."""


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Make OSErrors in this context name the path; those of open files name none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def whole(path: Path, cure: str) -> Iterator[None]:
    """Turn errors of reading and parsing a file into one that names the file.

    Args:
        path: the file.
        cure: what the user can do, as the end of the message.

    Raises:
        Damaged: the content cannot be read or parsed.
    """
    try:
        with named(path):
            yield
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, zlib.error) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise Damaged(f"{path} is damaged ({reason}); {cure}") from error


def prepare(folder: Path) -> None:
    """Make a folder, and test that it is writable, before anything is measured."""
    with named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            _write_all(probe.fileno(), bytes(PROBE))


def prepare_file(path: Path) -> None:
    """Test that a file is writable, before anything is measured; its content stays.

    Raises:
        ValueError: the path is a folder, or its folder does not exist.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"json must be a file in a folder that exists, got {path}")
    if path.exists():
        with named(path):
            path.open("ab").close()
    if path.is_file() or not path.exists():
        prepare(path.parent)


def write(path: Path, content: str | bytes) -> None:
    """Replace a file atomically: a reader or a crash finds the old content or the new content.

    Args:
        path: the file; a special file such as /dev/stdout is written to directly.
        content: bytes, or text that is encoded as UTF-8.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with named(path):
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        with replaced(path) as file:
            file.write(data)


def append(path: Path, line: bytes) -> None:
    """Append a line and flush it to the disk; if the disk is full, nothing of it is kept."""
    with named(path), path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            _write_all(file.fileno(), line)
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def read_json(
    path: Path, cure: str, check: Callable[[Any], object] = lambda content: None
) -> dict[str, Any]:
    """The object in a JSON file; empty if the file does not exist.

    Args:
        path: the file.
        cure: see `whole`.
        check: called with the object; raises if the content is wrong; default no check.

    Raises:
        Damaged: the file holds no JSON object, or `check` raises.
    """
    if not path.exists():
        return {}
    with whole(path, cure):
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise TypeError(f"it must hold an object, received a {type(content).__name__}")
        check(content)
        return content


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all data; on a full disk `os.write` writes a part and returns its length."""
    while data:
        data = data[os.write(descriptor, data) :]
