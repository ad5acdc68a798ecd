"""The command line: `f3eo COMMAND`, one module per command."""

import sys
from importlib.metadata import PackageNotFoundError, version

from f3eo.cli.guard import guarded

ABOUT = (
    "Compare, tune and time F3EO and other optimizers, and inspect what they trained; --version "
    "prints the version."
)


def main() -> int:
    """Run the command line and return the exit code."""
    return guarded(_run)


def _run() -> int:
    if sys.argv[1:] == ["--version"]:
        print(f"f3eo {_version()}")
        return 0
    # Imported here: the commands need the extra f3eo[bench], and `guarded` must handle Ctrl-C
    # during their import.
    from f3eo.cli import (  # noqa: F401
        bench,
        compare,
        cost,
        inspect,
        methods,
        report,
        stream,
        tune,
    )
    from f3eo.cli.app import app

    return app.cli(prog="f3eo", description=ABOUT)


def _version() -> str:
    try:
        return version("f3eo")
    except PackageNotFoundError:
        return "from a source tree that is not installed"


__all__ = ["main"]
