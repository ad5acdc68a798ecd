"""Every way a command may end becomes an exit code and at most one line that says why.

What the terminal's encoding lacks is replaced, and `F3EO_TRACEBACK=1` shows where an error is from.
"""

import codecs
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

FAILED, UNEXPECTED = 2, 1
"""Exit codes: what was asked for cannot be done, or all of it failed; a mistake of this program."""
INTERRUPTED, CLOSED = 130, 141
"""After Ctrl-C, and where the reader of the output went away, by the custom of shells."""

TRACEBACK = "F3EO_TRACEBACK"

ELSEWHERE = "name another place, or make this one writable"
CURES = {
    errno.ENOSPC: "make room there, and give the same command again",
    errno.EDQUOT: "make room there, and give the same command again",
    errno.ENOTDIR: "a file stands where a folder is wanted: name another place",
    errno.EEXIST: "a file stands where a folder is wanted: name another place",
    errno.EISDIR: "a folder stands where a file is wanted: name another, or move it away",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "name another place, or make its folder",
    errno.EIO: "see that the disk is sound",
    errno.ENOMEM: "ask for fewer workers, or close other programs",
    errno.EMFILE: "ask for fewer workers",
}
"""By the number of the system's error, as the end of a sentence."""

PLAIN = str.maketrans("─━│┃╷╵╭╮╰╯┌┐└┘├┤┬┴┼–—−×…▲▼“”‘’", "--||||+++++++++++++---x~^v\"\"''")
"""What stands for signs that the terminal does not know, one for one, so that columns stay."""


def guarded(command: Callable[[], int]) -> int:
    """The exit code of a command, whatever it ends in.

    Args:
        command: gives its exit code.
    """
    _encodable()
    try:
        try:
            code = command()
        except SystemExit as end:  # of the parser of the command line
            code = end.code if isinstance(end.code, int) else FAILED if end.code else 0
        if sys.stdout:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _told("Interrupted.", INTERRUPTED)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        _silence()
        return _told(*explained(error))


def explained(error: Exception) -> tuple[str, int]:
    """A line for an error, and the exit code."""
    if isinstance(error, BrokenPipeError) and error.filename is None:
        what = "Standard output was closed before all was printed, as by `| head`"
        return f"{what}; what was written into files is there.", CLOSED
    if isinstance(error, OSError) and error.errno is not None:
        name = "standard output" if error.filename is None else os.fsdecode(error.filename)
        cure = CURES.get(error.errno, ELSEWHERE)
        return f"Error: {name}: {error.strerror}; {cure}.", FAILED
    if isinstance(error, ModuleNotFoundError) and not (error.name or "f3eo").startswith("f3eo"):
        return f"Error: {error.name} is missing; pip install 'f3eo[bench]' brings it.", FAILED
    if isinstance(error, (ValueError, OSError)):
        return f"Error: {error}", FAILED
    kind = type(error).__name__
    return (
        f"Error: {kind}: {error}. This is a mistake in f3eo; with {TRACEBACK}=1 the same command "
        "shows where.",
        UNEXPECTED,
    )


def _told(text: str, code: int) -> int:
    """The text in one line on stderr; gives back the code."""
    with suppress(OSError, AttributeError):
        print(" ".join(text.splitlines()), file=sys.stderr, flush=True)
    return code


def _encodable() -> None:
    """No sign is an error: those that the encoding of the terminal lacks are replaced."""
    codecs.register_error("f3eo.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="f3eo.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].translate(PLAIN)
    return "".join(sign if sign.isascii() else "?" for sign in lacking), error.end


def _silence() -> None:
    """What cannot be printed any more is not tried again at the exit."""
    with suppress(OSError, AttributeError, ValueError):
        sys.stdout.flush()
        return
    with suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
