"""Defaults and ranges of the options that several learners share.

A range reaches about ten times to both sides of what the papers take with batches of ten. All
learners try the same rates (`f3eo.bench.continual.plan.tuning`), after their defaults, and get the
same number of trials.

SGD has momentum 0.8 and no weight decay, as in the code of Stable SGD (github.com/imirzadeh/
stable-continual-learning, `stable_sgd/main.py`), where plain SGD and Stable SGD share it. So do all
learners here that step by SGD, F3EO among them, but A-GEM: momentum would add gradients that are
not projected. Momentum is searched where a learner has no option of its own to search.
"""

from typing import Any

from optuna.distributions import FloatDistribution


def log(low: float, high: float) -> FloatDistribution:
    """A range that is searched on a logarithmic scale."""
    return FloatDistribution(low, high, log=True)


SGD: dict[str, Any] = {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.0}
"""Options of a learner that steps by SGD."""

SGD_RATE = {"lr": log(1e-3, 0.1)}
MOMENTUM = {"momentum": FloatDistribution(0.0, 0.95)}
ADAM_LIKE = {"lr": log(1e-5, 1e-2), "weight_decay": log(1e-4, 1e-1)}
"""AdamW and Muon: updates of Adam's size, decoupled weight decay."""
RADIUS = {"rho": log(0.01, 1.0)}
"""SAM's."""
STRUCTURE = {"value": log(0.1, 30.0)}
"""F3EO's λ before `Sensitivity` lowers it: samples that are seen once are hardly fitted one by
one, so that it is lowered far."""
PENALTY = {"strength": log(0.01, 1e3)}
"""λ of ½ λ Σ Ω (θ − θ*)², where Ω is a mean of squares of single gradients. Far above the best,
lr λ Ω passes 1, where every learner limits it."""
PENALTY_OF_BATCHES = {"strength": log(0.1, 1e4)}
"""λ where Ω is a mean of squares of batch gradients: 1/B as large where these are noise, B = 10, so
that the same place in both ranges is about the same curvature."""
