"""A study that was never run: eleven methods, eleven tasks, ten seeds, known means."""

import json
from pathlib import Path
from typing import Any

import numpy as np

TASKS = (
    "digits-mlp", "mnist1d-mlp", "mnist1d-cnn", "fashion-cnn", "fashion-cnn-noise40",
    "large-batch", "cifar10-10k", "shakespeare-char", "modular-addition", "wine", "breast-cancer",
)  # fmt: skip
METHODS = (
    "sgd", "adamw", "muon", "sam", "asam", "penalty", "looksam", "adahessian", "soap", "ivon",
    "f3eo",
)  # fmt: skip
LEVELS = {
    "sgd": 90.0, "adamw": 88.5, "muon": 91.0, "sam": 92.0, "asam": 92.2, "penalty": 91.5,
    "looksam": 91.0, "adahessian": 87.0, "soap": 89.5, "ivon": 88.0, "f3eo": 93.0,
}  # fmt: skip
"""Mean accuracy in %, on every task but for what EXCEPTIONS say."""

EXCEPTIONS = {("wine", "sgd"): 93.0, ("wine", "sam"): 93.0, ("modular-addition", "muon"): 99.0}
DIVERGED = {("cifar10-10k", "ivon"): range(10), ("wine", "adahessian"): (2, 5)}
PRICES = dict(zip(METHODS, (1, 1.1, 1.4, 2, 2.1, 2.2, 1.3, 3.5, 2.4, 1.2, 2.0), strict=True))
SPREAD = 0.4
MACHINE = {"processor": "made-up", "cores": 2, "threads": 1, "system": "none"}
TRIALS = 8


def row(
    task: str, method: str, seed: int, level: float | None, variant: str = "", **changes: Any
) -> dict[str, Any]:
    """A row whose final accuracy is `level` in %, None for one that diverged."""
    price = PRICES.get(method, 1.5)
    kind = changes.pop("kind", "result")
    options = {"lr": 0.3, "weight_decay": 1e-3} | changes.pop("options", {})
    steps = int(1000 / price)
    start, end = 10.0, 50.0 if level is None else level
    x = np.linspace(0, 1, 26)
    accuracy = (start + (end - start) * (1 - np.exp(-6 * x)) / (1 - np.exp(-6))) / 100
    loss = 3 * (1 - accuracy)
    curve = {
        "step": [round(steps * s) for s in x],
        "gradients": [round(steps * s) * price for s in x],
        "seconds": (10 * x).tolist(),
        "train_loss": (0.6 * loss).tolist(),
        "test_loss": loss.tolist(),
        "test_accuracy": accuracy.tolist(),
        "fisher_trace": (40 * loss).tolist(),
    }
    if level is None:
        curve = {name: values[:5] for name, values in curve.items()}
    hit = next((i for i, a in enumerate(curve["test_accuracy"]) if a >= 0.88), None)
    final = {name: values[-1] for name, values in curve.items()} | {
        "calibration_error": 0.02 + (1 - accuracy[-1]) / 4,
        "top_eigenvalue": 300 * loss[-1],
        "gap": 0.4 * loss[-1],
        "clean_accuracy": accuracy[-1],
        "corrupted_accuracy": 0.8 * accuracy[-1],
        "int4_accuracy": 0.9 * accuracy[-1],
    }
    return {
        "key": f"{kind} {task} {method} {variant} {seed} {options}",
        "task": task,
        "method": method,
        "variant": variant,
        "kind": kind,
        "seed": seed,
        "config": {
            "budget": 1000, "batch": 100, "evaluations": 25, "probe": 1000, "split": "test",
            "price": price, "options": options,
        },
        "status": "diverged" if level is None else "finished",
        "error": "the loss was no finite number any more" if level is None else None,
        "traceback": None,
        "steps": steps,
        "gradient_equivalents": round(price),
        "final": None if level is None else final,
        "best": {"test_accuracy": curve["test_accuracy"][-1], "test_loss": curve["test_loss"][-1]},
        "target": {
            "reached": hit is not None,
            "step": curve["step"][hit] if hit is not None else None,
            "gradients": curve["gradients"][hit] if hit is not None else None,
            "seconds": curve["step"][hit] * price if hit is not None else None,
        },
        "curve": curve,
        "warnings": [],
        "versions": {"python": "3.12", "torch": "made-up", "f3eo": "0.1.0"},
        "machine": MACHINE,
        "time": "2026-01-01T00:00:00+00:00",
        "command": "f3eo bench --name made-up",
    }  # fmt: skip


def results(seeds: int = 10, tasks: Any = TASKS, methods: Any = METHODS) -> list[dict[str, Any]]:
    """The methods themselves; seeds share half of their luck."""
    found = []
    for task in tasks:
        for seed in range(seeds):
            luck = np.random.default_rng([TASKS.index(task), seed])
            shared = luck.normal()
            for method in METHODS:  # all, so that leaving some out changes nothing for the others
                noise = SPREAD * (shared + luck.normal()) / 2**0.5
                level = EXCEPTIONS.get((task, method), LEVELS[method]) + noise
                lost = seed in DIVERGED.get((task, method), ())
                if method in methods:
                    found.append(row(task, method, seed, None if lost else min(level, 100.0)))
    return found


def variants(seeds: int = 10) -> list[dict[str, Any]]:
    """An ablation on three tasks and the grids of three rules on one."""
    effects = {
        "estimator=sign": -0.3, "estimator=batch": -1.0, "rule=coupled": -0.5,
        "rule=direct": -8.0, "fraction=1": 0.1, "every=2": -0.2, "f3eo over muon": 0.8,
    }  # fmt: skip
    found = []
    for task in TASKS[:3]:
        for seed in range(seeds):
            luck = np.random.default_rng([7, TASKS.index(task), seed])
            for label, effect in effects.items():
                level = LEVELS["f3eo"] + effect + SPREAD * luck.normal()
                lost = label == "rule=direct" and seed == 3
                found.append(row(task, "f3eo", seed, None if lost else level, label))
    for rule in ("direct", "coupled", "decoupled"):
        for i, lr in enumerate((0.03, 0.1, 0.3, 1.0)):
            for j, weight in enumerate((0.03, 0.1, 0.3, 1.0)):
                for seed in range(2):
                    off = abs(i - 2) * 2 + (abs(i - 2) + abs(j - 1)) ** 2 * (rule == "direct") * 5
                    level = None if rule == "direct" and i == j == 3 else 92.0 - off - seed
                    kind, name = ("ratio",) * 2 if rule == "decoupled" else ("fixed", "value")
                    options = {"lr": lr, "rule": rule, "strength": kind, name: weight}
                    label = f"sensitivity {rule}"
                    found.append(row("mnist1d-mlp", "f3eo", seed, level, label, options=options))
    return found


def trials() -> list[dict[str, Any]]:
    """TRIALS settings of every method and task on one seed."""
    return [
        row(task, method, 1000, 80.0 + n, kind="trial", options={"lr": round(0.01 * 2**n, 2)})
        for task in TASKS
        for method in METHODS
        for n in range(TRIALS)
    ]


def asked(tasks: Any = TASKS, methods: Any = METHODS) -> dict[str, Any]:
    """`study.json`."""
    said = {"description": "made-up", "batch": 100, "budget": 1000}
    return {
        "name": "made-up", "trials": TRIALS, "seeds": 10, "scale": 1.0, "methods": list(methods),
        "parts": ["results", "ablation", "sensitivity"], "command": "f3eo bench --name made-up",
        "tasks": {
            t: said | ({"score": "loss", "target": 0.36} if t == "shakespeare-char"
                       else {"score": "accuracy", "target": 0.88}) for t in tasks
        },
        "spaces": {m: {"lr": [0.05, 2.0], "weight_decay": [1e-4, 1e-2]} for m in methods},
    }  # fmt: skip


def whole(folder: Path) -> Path:
    """Everything: results, ablation, grids, trials, prices."""
    write(folder, [*results(), *variants()], trials())
    (folder / "study.json").write_text(json.dumps(asked()))
    prices = {"plain_ms": dict.fromkeys(TASKS, 2.0), "prices": {}}
    (folder / "prices.json").write_text(json.dumps(prices))
    return folder


def write(folder: Path, rows: list[dict[str, Any]], tried: list[dict[str, Any]] = ()) -> Path:
    """A folder as `f3eo bench` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("results", rows), ("trials", tried)):
        if lines:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / f"{name}.jsonl").write_text(text)
    return folder
