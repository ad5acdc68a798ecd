"""Runs that take a moment, and rows that were never trained."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from f3eo.bench.methods import METHODS
from f3eo.bench.run.environment import machine, versions
from f3eo.bench.run.run import Run
from f3eo.bench.tasks import TASKS
from f3eo.bench.tasks.data import FOLDER

BESIDE = Path(__file__).parents[3] / "shared/data"
if BESIDE.is_dir():
    os.environ.setdefault(FOLDER, str(BESIDE))

MakeRun = Callable[..., Run]
MakeRow = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def needs_data() -> None:
    if FOLDER not in os.environ:
        pytest.skip(f"needs the data sets: {FOLDER} names no folder")


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    def make(method: str = "sgd", task: str = "digits-mlp", seed: int = 0, **changes: Any) -> Run:
        options = METHODS[method].options(changes.pop("options", {}))
        usual = {"budget": 24, "batch": TASKS[task].batch, "evaluations": 4, "probe": 50}
        return Run(task, method, seed, options=options, **(usual | changes))

    return make


@pytest.fixture(scope="session")
def make_row(make_run: MakeRun) -> MakeRow:
    def make(accuracy: float = 0.5, **changes: Any) -> dict[str, Any]:
        run = make_run(**changes)
        last = {
            "step": 10,
            "gradients": 20.0,
            "seconds": 1.0 + run.seed,
            "train_loss": 0.5,
            "test_loss": 2 - accuracy,
            "test_accuracy": accuracy,
            "fisher_trace": 3.0,
        }
        return {
            "key": run.key,
            "task": run.task,
            "method": run.method,
            "variant": run.variant,
            "kind": "trial" if run.split == "validation" else "result",
            "seed": run.seed,
            "config": run.config,
            "status": "finished",
            "error": None,
            "traceback": None,
            "steps": 10,
            "gradient_equivalents": 2.0,
            "final": last
            | {"calibration_error": 0.1, "top_eigenvalue": 30.0, "gap": 1.5 - accuracy},
            "best": {"test_accuracy": accuracy, "test_loss": 2 - accuracy},
            "target": {"reached": False, "step": None, "gradients": None, "seconds": None},
            "curve": {name: [value / 2, value] for name, value in last.items()},
            "source": "",
            "versions": versions(),
            "machine": machine(),
            "warnings": [],
            "time": "2026-01-01T00:00:00+00:00",
            "command": "f3eo compare --name made-up",
        }

    return make


class FakeGPU:
    """Notes what is moved to "cuda" and how often it is waited for; everything stays where it is.

    Attributes:
        modules, tensors: what was moved.
        waits: how often all its work was waited for.
    """

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self.tensors: list[Tensor] = []
        self.waits = 0

    def has(self, tensor: Tensor) -> bool:
        """Whether this very tensor was moved."""
        return any(tensor is moved for moved in self.tensors)

    def wait(self, device: object = None) -> None:
        self.waits += 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGPU:
    fake = FakeGPU()

    def moving(kind: type, moved: list[Any]) -> None:
        real = kind.to

        def to(self: Any, *arguments: Any, **options: Any) -> Any:
            if arguments and str(arguments[0]).startswith("cuda"):
                moved.append(self)
                return self
            return real(self, *arguments, **options)

        monkeypatch.setattr(kind, "to", to)

    moving(Tensor, fake.tensors)
    moving(nn.Module, fake.modules)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Fake 1 at {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", fake.wait)
    return fake
