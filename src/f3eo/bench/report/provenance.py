"""Where rows come from: machines, versions and commands."""

from collections.abc import Sequence
from typing import Any

from f3eo.bench.run.row import Row


def environments(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each combination of versions and machine of the finished runs, and its number of rows."""
    known: list[dict[str, Any]] = []
    for row in rows:
        if row["status"] != "finished":
            continue
        for environment in known:
            if all(environment[name] == row[name] for name in ("versions", "machine")):
                environment["rows"] += 1
                break
        else:
            known.append({"versions": row["versions"], "machine": row["machine"], "rows": 1})
    return known


def commands(rows: Sequence[Row]) -> list[str]:
    """The commands that produced the rows, in order of appearance."""
    return list(dict.fromkeys(row["command"] for row in rows if row.get("command") is not None))
