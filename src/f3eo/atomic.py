"""Replacement of a file in one piece: a reader or a crash finds the old content or the new one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A draft beside the file, which takes its place when the context ends without an error.

    The draft is on the disk before it is renamed, and the name before the context is left, so that
    neither `kill -9` nor a power failure leaves half a file under this name.

    Args:
        path: the file; of a symbolic link, what it leads to is replaced.

    Raises:
        OSError: the draft cannot be written; it is removed.
    """
    target = path.resolve()
    draft = target.with_name(target.name + ".tmp")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()  # frees room on a full disk
        raise
    _sync_names(target.parent)


def _sync_names(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system can."""
    with suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
