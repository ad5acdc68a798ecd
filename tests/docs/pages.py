"""The README and the pages beside it: their text, their Python blocks, and how a block is run."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import f3eo
from f3eo.direction.metric import METRICS
from f3eo.fisher.ghost.registry import RULES

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def text(page: str) -> str:
    """The page as it is written."""
    return PAGES[page].read_text(encoding="utf-8")


def prose(page: str) -> str:
    """The page on one line, every run of blanks a single one."""
    return " ".join(text(page).split())


def blocks(page: str) -> list[str]:
    """Its Python blocks."""
    return re.findall(r"```python\n(.*?)```", text(page), re.S)


def block(page: str, *, containing: str) -> str:
    """The one Python block with this string in it."""
    (found,) = [block for block in blocks(page) if containing in block]
    return found


def changes(page: str) -> list[tuple[str, int]]:
    """Its blocks of changes: the code after each, and the number of new lines."""
    found = []
    for block in re.findall(r"```diff\n(.*?)```", text(page), re.S):
        lines = [line for line in block.splitlines() if not line.startswith("-")]
        code = "\n".join(line[2:] for line in lines)
        found.append((code, sum(line.startswith("+") for line in lines)))
    return found


def table(page: str, first: str) -> list[list[str]]:
    """The cells of the table whose header begins with this cell, header and rule left out."""
    lines = text(page).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def names(*, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """What a block finds: f3eo's names, a small model, a batch, a closure, an optimizer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    x, y = torch.randn(6, 4, dtype=dtype), torch.tensor([0, 1, 2, 0, 1, 2])

    def closure(x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x), y, reduction="none")

    return {
        **{name: getattr(f3eo, name) for name in f3eo.__all__},
        **{"torch": torch, "F": F, "model": model, "closure": closure, "x": x, "y": y},
        **{"loader": [(x, y)], "micro_batches": [(x[:2], y[:2]), (x[2:], y[2:])]},
        **{"body": list(model[0].parameters()), "head": list(model[2].parameters())},
        "optimizer": f3eo.F3EO(model, torch.optim.SGD, lr=0.1),
    }


@contextmanager
def registries() -> Iterator[None]:
    """What is registered inside is forgotten."""
    kept = [(registry, dict(registry)) for registry in (RULES, METRICS)]
    try:
        yield
    finally:
        for registry, before in kept:
            registry.clear()
            registry.update(before)


def run(block: str, space: dict[str, Any] | None = None) -> dict[str, Any]:
    """Execute a block; the names it leaves."""
    space = names() if space is None else space
    with registries():
        exec(block, space)
    return space
