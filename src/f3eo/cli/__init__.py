"""The command line: `f3eo COMMAND`, one function per command."""

import sys
from importlib.metadata import PackageNotFoundError, version

from f3eo.cli.guard import guarded

ABOUT = "Compare F3EO with its rivals, tune and time them; --version says which f3eo this is."


def main() -> int:
    """Run the command line; returns the exit code."""
    return guarded(_run)


def _run() -> int:
    if sys.argv[1:] == ["--version"]:
        print(f"f3eo {_version()}")
        return 0
    # Here: they need the extra f3eo[bench], and Ctrl-C may come while they are loaded.
    from f3eo.cli import compare, cost, methods, report, study  # noqa: F401
    from f3eo.cli.app import app

    return app.cli(prog="f3eo", description=ABOUT)


def _version() -> str:
    try:
        return version("f3eo")
    except PackageNotFoundError:
        return "of a source tree that is not installed"


__all__ = ["main"]
