"""A trained model in a file, with the path that its training took, if that was kept."""

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.bench.execute import disk
from f3eo.bench.run.run import Run

NAMES = ("model", "state_dict", "model_state_dict")
"""Names under which files of other programs keep the state dict of a model."""
PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile put before the names of parameters."""
CURE = "torch.save(model.state_dict(), FILE) writes what is read here"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Args:
        state: the state dict of the model.
        path: the parameters that require a gradient, in a row, at several times of training, the
            first before any step: (k, P), or (0, 0) if they were not kept.
        facts: what else is known, such as `task`, `method` and `seed`.
    """

    state: Mapping[str, Tensor]
    path: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    facts: Mapping[str, Any] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Replace a file atomically."""
        content = io.BytesIO()
        torch.save({"model": dict(self.state), "path": self.path, "facts": self.facts}, content)
        disk.write(file, content.getvalue())

    def into(self, model: nn.Module, file: Path, task: str) -> None:
        """Load the state into a model.

        Args:
            model: receives it.
            file, task: named in errors.

        Raises:
            ValueError: names or shapes differ; the message has the first that does.
        """
        own = model.state_dict()
        shapes = {
            n: (tuple(own[n].shape), tuple(t.shape)) for n, t in self.state.items() if n in own
        }
        problems = [
            *(f"it lacks {name}" for name in own if name not in self.state),
            *(f"it has {name}, which the model lacks" for name in self.state if name not in own),
            *(f"{n} has shape {b}, not {a}" for n, (a, b) in shapes.items() if a != b),
        ]
        if problems:
            rest = f", and {len(problems) - 1} more differences" if len(problems) > 1 else ""
            raise ValueError(
                f"{file} does not fit the model of {task}: {problems[0]}{rest}; name the task that "
                f"it was trained on with --task"
            )
        model.load_state_dict(self.state)


def read(file: Path) -> Checkpoint:
    """Read a file of `Checkpoint.write`, or one with a state dict in it.

    The state dict is the file's content, or stands under one of NAMES. Nothing else than tensors
    and plain values is unpickled.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no state dict.
    """
    with disk.named(file):
        content = file.read_bytes()
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(f"{file} is no checkpoint of torch ({reason}); {CURE}") from error
    state = (
        next((loaded[n] for n in NAMES if n in loaded), loaded)
        if isinstance(loaded, dict)
        else None
    )
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(t, Tensor) for t in state.values())
    ):
        raise ValueError(f"{file} holds no state dict of a model; {CURE}")
    whole = {"path", "facts"} <= set(loaded)
    facts, path = (loaded["facts"], loaded["path"]) if whole else ({}, torch.zeros(0, 0))
    return Checkpoint({_stripped(name): t for name, t in state.items()}, path, facts)


class Keeper:
    """Watches the training of a run, and writes its checkpoint.

    Args:
        run: gives the file its name and facts.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.path: list[Tensor] = []
        self.state: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module) -> None:
        """Keep the parameters, a point of the path, and the state."""
        trained = [
            p.detach().flatten().float().cpu() for p in model.parameters() if p.requires_grad
        ]
        self.path.append(torch.cat(trained))
        self.state = {name: t.detach().cpu().clone() for name, t in model.state_dict().items()}

    def write(self, folder: Path) -> None:
        """Write TASK-METHOD-SEED.pt."""
        run = self.run
        facts = {"task": run.task, "method": run.method, "seed": run.seed}
        file = folder / f"{run.task}-{run.method}-{run.seed}.pt"
        Checkpoint(self.state, torch.stack(self.path), facts).write(file)


def _stripped(name: str) -> str:
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name.removeprefix(prefix)
    return name
