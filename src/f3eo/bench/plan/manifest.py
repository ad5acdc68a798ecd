"""`study.json`: what a study was asked to do, over all commands of its name."""

import json
from collections.abc import Mapping
from typing import Any

from f3eo.bench.execute import disk
from f3eo.bench.plan.spaces import WRAPPERS, space
from f3eo.bench.plan.study import Study
from f3eo.bench.tasks import TASKS

CURE = "move it away: this command then writes a new one, without the requests of earlier commands"
"""Advice in the error about a damaged study.json."""


def write_manifest(study: Study) -> None:
    """Write `study.json`; tasks, methods and parts of earlier commands are kept.

    Raises:
        Damaged: the file that exists is not a manifest.
    """
    path = study.path / "study.json"
    disk.prepare(study.path)
    before = disk.read_json(path, CURE, check_asked)
    names = ("name", "trials", "seeds", "scale", "device", "command")
    asked: dict[str, Any] = {name: getattr(study, name) for name in names}
    for name in ("parts", "methods"):
        asked[name] = list(dict.fromkeys([*before.get(name, ()), *getattr(study, name)]))
    asked["tasks"] = before.get("tasks", {}) | {
        name: _describe(study, name) for name in study.tasks
    }
    bases = dict.fromkeys(task["base"] for task in asked["tasks"].values() if "base" in task)
    asked["spaces"] = {
        f"{method} over {base}" if method in WRAPPERS else method: {
            option: [d.low, d.high] for option, d in space(method, base).items()
        }
        for method in asked["methods"]
        for base in (bases if method in WRAPPERS else ("sgd",))
    }
    disk.write(path, json.dumps(asked, indent=1) + "\n")


def check_asked(asked: Mapping[str, Any]) -> None:
    """Refuse entries of the wrong type in `study.json`.

    Raises:
        TypeError, AttributeError: an entry has the wrong type.
    """
    for entries in asked.get("tasks", {}).values():
        entries.items()
    for names in (asked.get("parts", ()), asked.get("methods", ())):
        "".join(names)
    asked.get("spaces", {}).items()
    int(asked.get("seeds", 0))


def _describe(study: Study, name: str) -> dict[str, Any]:
    """The properties of a task and the base of wrappers on it."""
    entries = ("description", "batch", "budget", "score", "target")
    properties = {entry: getattr(TASKS[name], entry) for entry in entries}
    return properties | {"base": study.base_on(name)}
