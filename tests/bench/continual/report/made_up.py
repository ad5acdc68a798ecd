"""Rows of a stream study that was never run: scores that fall with what is learnt after them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LEVELS: dict[str, tuple[float, float]] = {
    "sgd": (0.955, 0.030), "adamw": (0.960, 0.036), "muon": (0.962, 0.031),
    "sam": (0.956, 0.022), "f3eo": (0.957, 0.014), "stable_sgd": (0.948, 0.012),
    "f3eo_stable": (0.950, 0.007), "f3eo_shaped": (0.954, 0.020), "sam_shaped": (0.955, 0.024),
    "ewc": (0.952, 0.012), "ewc_batch": (0.950, 0.016), "online_ewc": (0.951, 0.013),
    "stable_ewc": (0.950, 0.010), "si": (0.951, 0.015), "f3eo_elastic": (0.954, 0.009),
    "f3eo_stable_elastic": (0.953, 0.007), "replay": (0.955, 0.010),
    "replay_sam": (0.956, 0.009), "agem": (0.954, 0.013), "f3eo_memory": (0.956, 0.006),
}  # fmt: skip
"""By learner: the score of a task just learnt, and what it loses with every later stage."""

STEPS = [0, 1, 5, 20]


def matrix(stages: int, learnt: float, lost: float, chance: float = 0.1) -> list[list[float]]:
    """(K + 1) rows of K scores: chance, a bit above it before its stage, then ever lower."""
    rows = [[chance] * stages]
    for i in range(1, stages + 1):
        rows.append(
            [
                max(chance, learnt - lost * (i - 1 - j)) if j < i else chance + 0.02 * min(i, 5)
                for j in range(stages)
            ]
        )
    return rows


def row(stream: str, learner: str, seed: int, equal: str = "steps", **changes: Any) -> dict:
    """A finished row of five stages with a matrix of round numbers, before `changes`.

    `stages`, `learnt` and `lost` make the matrix; other names replace entries.
    """
    stages = changes.pop("stages", 5)
    learnt, lost = changes.pop("learnt", 0.9), changes.pop("lost", 0.02)
    scores = matrix(stages, learnt, lost)
    grown = np.arange(1, stages + 1)
    structure = {
        "trace": (2 + 400 * lost * grown).tolist(),
        "relative_trace": (0.5 + 40 * lost * grown).tolist(),
        "accuracy": (-(1.2 - learnt) * (1 + lost * grown)).tolist(),
        "complexity": (0.05 + 0.4 * lost * grown).tolist(),
    }
    pairs = zip(structure["complexity"], structure["accuracy"], strict=True)
    structure["free_energy"] = [c - a for c, a in pairs]
    unseen = [
        {
            "stage": f"unseen {k}",
            "after": after,
            "shots": shots,
            "steps": STEPS,
            "scores": [
                min(0.95, 0.3 + 0.4 * learnt * after / stages - 4 * lost + 0.02 * k + gain)
                for gain in ((0, 0.01, 0.05, 0.2) if shots is None else (0, 0.01, 0.03, 0.1))
            ],
        }
        for k in range(2)
        for after in sorted({1, stages})
        for shots in (None, 5)
    ]
    return {
        "key": f"{stream}-{learner}-{seed}-{equal}",
        "stream": stream,
        "learner": learner,
        "seed": seed,
        "kind": "result",
        "config": {
            "kind": "result",
            "equal": equal,
            "stages": stages,
            "batch": 10,
            "epochs": 1,
            "samples": None,
            "tests": None,
            "options": {"lr": 0.03},
        },
        "status": "finished",
        "error": None,
        "traceback": None,
        "warnings": [],
        "steps": [100] * stages,
        "versions": {"torch": "2.13.0"},
        "machine": {"processor": "made-up", "cores": 2, "threads": 1, "system": "none"},
        "time": "2026-01-01T00:00:00+00:00",
        "command": "f3eo stream --name made-up",
        "scores": scores,
        "losses": [[2.3 * (1 - score) for score in line] for line in scores],
        "structure": structure,
        "unseen": unseen,
        "seconds": 10.0,
    } | changes


def lost_row(stream: str, learner: str, seed: int, equal: str = "steps") -> dict:
    """A row of a run that diverged in its second stage."""
    row_ = row(stream, learner, seed, equal)
    error = "the loss was not finite in stage 2"
    part = {
        "scores": row_["scores"][:2],
        "losses": row_["losses"][:2],
        "structure": {name: values[:1] for name, values in row_["structure"].items()},
        "unseen": [],
    }
    return row_ | part | {"status": "diverged", "error": error}


def study(
    streams: Sequence[str] = ("permuted-mnist", "rotated-mnist", "mnist-fashion", "sinusoid"),
    learners: Sequence[str] = tuple(LEVELS),
    seeds: int = 5,
    equals: Sequence[str] = ("steps", "time"),
    stages: int = 20,
) -> list[dict]:
    """Rows of a whole study, with noise from a generator of their own."""
    random, rows = np.random.default_rng(0), []
    for stream in streams:
        count = 2 if stream == "mnist-fashion" else stages
        for equal in equals:
            for seed in range(seeds):
                luck = random.normal(0, 0.004)
                for learner in learners:
                    learnt, lost = LEVELS[learner]
                    price = 0.01 if equal == "time" and learner.startswith("f3eo") else 0.0
                    own = random.normal(0, 0.002)
                    made = row(
                        stream, learner, seed, equal, stages=count,
                        learnt=learnt + luck + own - price, lost=lost * (1 + 20 * own),
                    )  # fmt: skip
                    if stream not in ("rotated-mnist", "sinusoid"):
                        made["unseen"] = []
                    if stream == "sinusoid":  # an error: lower is better
                        made["scores"] = [[1.2 * (1 - s) for s in line] for line in made["scores"]]
                        for entry in made["unseen"]:
                            entry["scores"] = [1 - score for score in entry["scores"]]
                    rows.append(made)
    return rows
