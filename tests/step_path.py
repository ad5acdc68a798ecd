"""The path of one default step: which functions of f3eo run, and how often the file changes.

    python tests/step_path.py           # the files, with the changes into each
    python tests/step_path.py --calls   # every stretch of calls inside one file

A step that measures the structure term, on a network of two linear layers, once layouts are known.
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


def path() -> list[tuple[str, str]]:
    """File and function of every call of a Python function of f3eo, in order."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    optimizer = F3EO(model, SGD, lr=0.1)
    batch = torch.randn(32, 8), torch.randint(0, 3, (32,))

    def losses(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

    for _ in range(optimizer.every):
        optimizer.step(losses, *batch)
    calls: list[tuple[str, str]] = []

    def note(frame, event, _) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT)):
            calls.append((str(Path(code.co_filename).relative_to(ROOT)), code.co_name))

    sys.setprofile(note)
    try:
        optimizer.step(losses, *batch)
    finally:
        sys.setprofile(None)
    return calls


def stretches(calls: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Calls without a change of file between them, together."""
    found: list[tuple[str, list[str]]] = []
    for file, function in calls:
        if not found or found[-1][0] != file:
            found.append((file, []))
        found[-1][1].append(function)
    return found


def main() -> None:
    calls = path()
    found = stretches(calls)
    if "--calls" in sys.argv:
        for file, functions in found:
            print(f"{file}: {' '.join(functions)}")
    into = Counter(file for file, _ in found)
    for file, count in into.most_common():
        print(f"{count:4} {file}")
    print(f"{len(calls)} calls, {len(into)} files, {len(found) - 1} changes of file")


if __name__ == "__main__":
    main()
