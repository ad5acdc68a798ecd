"""Runs of the control study: every row is one training, appended to rows.jsonl; it resumes.

PYTHONPATH=src F3EO_DATA=… python results/control/run.py [settle curve free default]
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from math import inf, log
from pathlib import Path
from typing import Any

import torch

from f3eo import F3EO, Cap
from f3eo.bench.methods.bases import BASES
from f3eo.bench.run.train import batches, load
from f3eo.bench.tasks import TASKS
from f3eo.control import FreeEnergy, Share, TraceTarget
from f3eo.extend import Strength

ROWS = Path(__file__).with_name("rows.jsonl")
STEPS = 1_000
SETTINGS = {  # lr and weight decay; the rates stay constant, so that there is something to hold
    ("digits-mlp", "sgd"): (0.1, 1e-3),
    ("digits-mlp", "adamw"): (3e-3, 1e-2),
    ("mnist1d-mlp", "sgd"): (0.1, 1e-3),
    ("mnist1d-mlp", "adamw"): (3e-3, 1e-2),
    ("fashion-mlp-noise40", "sgd"): (0.1, 1e-3),
    ("fashion-mlp-noise40", "adamw"): (3e-3, 1e-2),
    ("fashion-mlp", "sgd"): (0.1, 1e-3),
    ("fashion-mlp", "adamw"): (3e-3, 1e-2),
}


@dataclass(frozen=True)
class Setting:
    """One training.

    Args:
        part: of the study: "settle", "curve", "free", or "default", at F3EO's own fraction and
            interval; the others measure every batch, and all of it.
        task, base: names of the benchmark.
        strength: "none", "share", "target", "cap" or "free".
        value: its number; variance of "free".
        seed: of model, split, order and parts of batches.
    """

    part: str
    task: str
    base: str
    strength: str
    value: float
    seed: int


def strength_of(setting: Setting, samples: int) -> Strength:
    """The strength of a setting; "none" measures the trace and takes nothing."""
    makers = {
        "none": lambda value: Cap(1e-12),
        "share": lambda value: TraceTarget(Share(value)),
        "target": lambda value: TraceTarget(value),
        "cap": lambda value: Cap(value),
        "free": lambda value: FreeEnergy(samples, variance=value),
    }
    return makers[setting.strength](setting.value)


def train(setting: Setting) -> dict[str, Any]:
    """One training of `STEPS` steps, judged on held-out samples; its row."""
    task = TASKS[setting.task]
    data = load(setting.task).validation(setting.seed)
    torch.manual_seed(setting.seed)
    model = task.seeded_model(setting.seed)
    lr, decay = SETTINGS[setting.task, setting.base]
    base = BASES[setting.base]
    strength = strength_of(setting, len(data.train.y))
    optimizer = F3EO(
        model,
        base.optimizer(base.groups(model), **base.arguments(lr, decay, base.momentum)),
        strength=strength,
        fraction=None if setting.part == "default" else 1,
        every=5 if setting.part == "default" else 1,
        generator=torch.Generator().manual_seed(setting.seed),
    )
    stream = batches(data.train, task.batch, torch.Generator().manual_seed(setting.seed))
    start, traces, used = time.process_time(), list[float](), list[float]()
    for _ in range(STEPS):
        optimizer.step(lambda x, y: task.loss(model(x), y), *next(stream))
        traces.append(float(optimizer.trace))
        used.append(_strength_now(strength))
    seconds = time.process_time() - start
    last = traces[-len(traces) // 3 :]
    target = strength.course.target if isinstance(strength, TraceTarget) else None
    row = asdict(setting) | {
        "steps": STEPS,
        "seconds": seconds,
        "trace": sum(last) / len(last),
        "target": target,
        "strength_last_third": sum(used[-len(last) :]) / len(last),
        "traces": [round(sum(traces[k : k + 20]) / 20, 6) for k in range(0, len(traces), 20)],
        "strengths": [round(sum(used[k : k + 20]) / 20, 6) for k in range(0, len(used), 20)],
    }
    if target is not None:
        row["log_of_mean"] = log(row["trace"] / target)
        row["mean_of_log"] = sum(log(max(t, 1e-30) / target) for t in last) / len(last)
        row["limited"] = strength.course.limited
    model.eval()
    with torch.no_grad():
        for name, part in (("train", data.train), ("held_out", data.test)):
            logits = model(part.x)
            row[f"{name}_loss"] = float(task.loss(logits, part.y).mean())
            row[f"{name}_accuracy"] = float((logits.argmax(-1) == part.y).float().mean())
    return row


def _strength_now(strength: Strength) -> float:
    """λ in the scale of a mean norm, before the limit."""
    if isinstance(strength, TraceTarget):
        return strength.course.strength
    if isinstance(strength, FreeEnergy):
        return strength.noise * strength.counters()["trace"] ** 0.5
    return strength.value


def settings(part: str) -> list[Setting]:
    """The trainings of one part."""
    if part == "settle":
        kinds = [("none", 0.0, 0), ("share", 0.5, 0), ("share", 0.5, 1), ("share", 1.0, 0)]
        runs = [Setting(part, t, b, k, v, s) for t, b in SETTINGS for k, v, s in kinds]
        # The base alone ends far below its early trace on digits: one run shows the rest.
        return [r for r in runs if r.task != "digits-mlp" or (r.value < 1 and r.seed == 0)]
    if part == "curve":
        targets = (0.25, 0.5, 1.0, 2.0)
        kinds = [("none", 0.0), *[("target", t) for t in targets]]
        return [Setting(part, "mnist1d-mlp", "sgd", k, v, s) for s in range(5) for k, v in kinds]
    if part == "default":
        kinds = [("none", 0.0), ("target", 0.5), ("free", 1.0)]
        return [Setting(part, "mnist1d-mlp", "sgd", k, v, s) for s in range(2) for k, v in kinds]
    kinds = [("cap", v) for v in (0.5, 1.0, 2.0)]
    kinds += [("free", 1.0), ("free", inf)]
    return [Setting(part, "mnist1d-mlp", "sgd", k, v, s) for s in range(5) for k, v in kinds]


def main(parts: list[str]) -> None:
    """Train what has no row yet."""
    torch.set_num_threads(1)
    lines = ROWS.read_text().splitlines() if ROWS.exists() else []
    names = Setting.__dataclass_fields__
    done = {tuple(json.loads(line)[n] for n in names) for line in lines}
    for setting in [s for part in parts for s in settings(part)]:
        if tuple(asdict(setting).values()) in done:
            continue
        row = train(setting)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        shown = {k: row[k] for k in ("trace", "target", "strength_last_third", "seconds")}
        print(*asdict(setting).values(), shown, row["held_out_accuracy"], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["settle", "curve", "free", "default"])
