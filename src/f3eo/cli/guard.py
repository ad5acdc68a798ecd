"""Turn every end of a command into an exit code and at most one line on stderr.

Characters that the terminal's encoding lacks are replaced. `F3EO_TRACEBACK=1` prints tracebacks.
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
"""Exit codes: invalid input or failure of every run; a bug in f3eo."""
INTERRUPTED, CLOSED = 130, 141
"""Exit codes after Ctrl-C and after a closed pipe, as in shells: 128 + the signal's number."""

TRACEBACK = "F3EO_TRACEBACK"
"""Environment variable: if set, tracebacks are printed."""

ELSEWHERE = "name another place, or make this one writable"
CURES = {
    errno.ENOSPC: "make room there, and give the same command again",
    errno.EDQUOT: "make room there, and give the same command again",
    errno.ENOTDIR: "a file is where a folder must be: name another place",
    errno.EEXIST: "a file is where a folder must be: name another place",
    errno.EISDIR: "a folder is where a file must be: name another file, or move the folder away",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "name another place, or create its folder",
    errno.EIO: "check the disk",
    errno.ENOMEM: "ask for fewer workers, or close other programs",
    errno.EMFILE: "ask for fewer workers",
}
"""Advice by error number of the system, as the end of a sentence."""

PLAIN = str.maketrans("─━│┃╷╵╭╮╰╯┌┐└┘├┤┬┴┼–—−×…▲▼“”‘’", "--||||+++++++++++++---x~^v\"\"''")
"""ASCII replacements, one character for one, so that columns stay aligned."""


def guarded(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; errors become one line on stderr.

    Args:
        command: returns its exit code.
    """
    _replace_unencodable()
    try:
        try:
            code = command()
        except SystemExit as end:  # raised by the parser of the command line
            code = end.code if isinstance(end.code, int) else FAILED if end.code else 0
        if sys.stdout:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _end("Interrupted.", INTERRUPTED)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        _silence()
        return _end(*explain(error))


def explain(error: Exception) -> tuple[str, int]:
    """The line that explains an error, and the exit code."""
    if isinstance(error, BrokenPipeError) and error.filename is None:
        what = "Standard output was closed before the output was complete, e.g. by `| head`"
        return f"{what}; files are complete.", CLOSED
    if isinstance(error, OSError) and error.errno is not None:
        name = "standard output" if error.filename is None else os.fsdecode(error.filename)
        cure = CURES.get(error.errno, ELSEWHERE)
        return f"Error: {name}: {error.strerror}; {cure}.", FAILED
    if isinstance(error, ModuleNotFoundError) and not (error.name or "f3eo").startswith("f3eo"):
        return f"Error: {error.name} is missing; pip install 'f3eo[bench]' installs it.", FAILED
    if isinstance(error, (ValueError, OSError)):
        return f"Error: {error}", FAILED
    kind = type(error).__name__
    return (
        f"Error: {kind}: {error}. This is a bug in f3eo; with {TRACEBACK}=1 the same command "
        "prints the traceback.",
        UNEXPECTED,
    )


def _end(text: str, code: int) -> int:
    """Print the text in one line on stderr and return the code."""
    with suppress(OSError, AttributeError):
        print(" ".join(text.splitlines()), file=sys.stderr, flush=True)
    return code


def _replace_unencodable() -> None:
    """Make both output streams replace characters that their encoding lacks."""
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
    """Discard output that cannot be written, so that the interpreter's exit does not retry it."""
    with suppress(OSError, AttributeError, ValueError):
        sys.stdout.flush()
        return
    with suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
