"""The path of a default step: which functions of f3eo run, and how often the file changes.

    python tests/step_path.py           # the files, with the changes into each
    python tests/step_path.py --calls   # every stretch of calls inside one file

Two kinds of step alternate: one measures the structure term, the next `every − 1` are those of the
base. The network has two linear layers, and layouts are known.
"""

import sys
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

import f3eo
from f3eo import F3EO

ROOT = Path(f3eo.__file__).parent

Stretch = tuple[str, list[str]]
"""A file, and the functions of it that were called before the next change of file."""


def paths() -> dict[str, list[Stretch]]:
    """The path of a step that measures h, and of one between two measurements."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    optimizer = F3EO(model, SGD, lr=0.1)
    batch = torch.randn(32, 8), torch.randint(0, 3, (32,))
    found: list[Stretch] = []

    def losses(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

    def note(frame, event, _) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(ROOT)):
            return
        file = str(Path(code.co_filename).relative_to(ROOT))
        if not found or found[-1][0] != file:
            found.append((file, []))
        found[-1][1].append(code.co_name)

    def step() -> list[Stretch]:
        found.clear()
        sys.setprofile(note)
        try:
            optimizer.step(losses, *batch)
        finally:
            sys.setprofile(None)
        return list(found)

    for _ in range(optimizer.every):
        optimizer.step(losses, *batch)
    return {"measures h": step(), "has no h": step()}


def changes(path: list[Stretch]) -> int:
    """How often the file changes on a path."""
    return len(path) - 1


def mean_changes(found: dict[str, list[Stretch]], every: int = 5) -> float:
    """The mean over the steps from one measurement to the next."""
    first, other = map(changes, found.values())
    return (first + (every - 1) * other) / every


def main() -> None:
    found = paths()
    for kind, path in found.items():
        print(f"A step that {kind}:")
        if "--calls" in sys.argv:
            for file, functions in path:
                print(f"  {file}: {' '.join(functions)}")
        into = Counter(file for file, _ in path)
        for file, count in into.most_common():
            print(f"  {count:4} {file}")
        calls = sum(len(functions) for _, functions in path)
        print(f"  {calls} calls, {len(into)} files, {changes(path)} changes of file\n")
    print(f"Mean over five steps: {mean_changes(found):.0f} changes of file")


if __name__ == "__main__":
    main()
