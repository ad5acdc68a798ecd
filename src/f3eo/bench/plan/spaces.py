"""What is searched for each method, the same on every task; all get the same number of trials.

Sharpness-aware methods and F3EO wrap a base (`Study.base`), and search its learning rate and
weight decay like the base itself. F3EO has one weight for all tasks, and nothing else to search.

Two to four options each, drawn on a logarithmic scale (see `tuning.draw`); the ranges reach a
factor of six to ten to both sides of what papers and packages propose. The first trial is the
method's default. A task may have a range of its own for Adam's weight decay (`Task.decay`). What is
not named here keeps its default.
"""

from collections.abc import Mapping

from optuna.distributions import FloatDistribution

Space = Mapping[str, FloatDistribution]


def _log(low: float, high: float) -> FloatDistribution:
    return FloatDistribution(low, high, log=True)


SGD_LIKE = {"lr": _log(0.05, 2.0), "weight_decay": _log(1e-4, 1e-2)}
"""For SGD with momentum 0.9, alone or wrapped."""
ADAM_LIKE = {"lr": _log(5e-4, 5e-2), "weight_decay": _log(1e-3, 1.0)}
"""For updates of the size of Adam's, with decoupled weight decay."""

BASES: Mapping[str, Space] = {"sgd": SGD_LIKE, "adamw": ADAM_LIKE, "muon": ADAM_LIKE}
"""By the base that wrappers take on a task."""
WRAPPERS: Mapping[str, Space] = {
    "sam": {"rho": _log(0.02, 0.5)},
    "asam": {"rho": _log(0.2, 5.0)},
    "penalty": {"rho": _log(0.02, 0.5)},
    "looksam": {"rho": _log(0.02, 0.5), "alpha": _log(0.05, 0.95)},
    "f3eo": {},
}
"""What they have beside their base's; one without is tried at its base's own points."""
OWN: Mapping[str, Space] = {
    **BASES,
    "adahessian": {"lr": _log(0.015, 1.0), "weight_decay": _log(1e-4, 1e-2)},
    "soap": ADAM_LIKE,
    "ivon": {
        "lr": _log(0.03, 3.0),
        "weight_decay": _log(1e-5, 1e-3),
        "hess_init": _log(0.05, 2.0),
    },
}
TUNED = (
    *("sgd", "adamw", "muon", "sam", "asam", "penalty", "looksam"),
    *("adahessian", "soap", "ivon", "f3eo"),
)
"""The methods that have a space."""


def space(method: str, base: str = "sgd", decay: tuple[float, float] | None = None) -> Space:
    """The search space of a method.

    Args:
        method: one of TUNED.
        base: what wrappers wrap; others do not ask.
        decay: range for the weight decay of Adam's kind; default that of ADAM_LIKE.

    Raises:
        ValueError: a method without one.
    """
    if method not in TUNED:
        raise ValueError(f"no search space for {method!r}; choose from {', '.join(TUNED)}")
    found = OWN[method] if method in OWN else {**BASES[base], **WRAPPERS[method]}
    usual = ADAM_LIKE["weight_decay"]
    return {name: _log(*decay) if decay and d is usual else d for name, d in found.items()}
