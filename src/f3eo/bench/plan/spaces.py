"""The search space of every method: two to four options, the same ranges on every task.

Options are drawn on a logarithmic scale (`tuning.draw`). A range extends a factor of six to ten to
both sides of the values that papers and packages propose; the first trial is the method's default.
Options without a range keep their defaults. All methods get the same number of trials.

Wrappers (sharpness-aware methods, averages, the last-layer penalty and F3EO) search the learning
rate and weight decay of their base (`Study.base`) in the base's own ranges. F3EO, which has one
strength for all tasks, and Schedule-Free have nothing else to search. A task may have its own range
for Adam's weight decay (`Task.decay`), and a factor on every method's learning rates
(`Task.rates`), as fine-tuning needs.
"""

from collections.abc import Mapping

from optuna.distributions import FloatDistribution

Space = Mapping[str, FloatDistribution]


def _log(low: float, high: float) -> FloatDistribution:
    return FloatDistribution(low, high, log=True)


SGD_LIKE = {"lr": _log(0.05, 2.0), "weight_decay": _log(1e-4, 1e-2)}
"""Ranges for SGD with momentum 0.9, alone or wrapped."""
ADAM_LIKE = {"lr": _log(5e-4, 5e-2), "weight_decay": _log(1e-3, 1.0)}
"""Ranges for updates of Adam's magnitude with decoupled weight decay."""

BASES: Mapping[str, Space] = {"sgd": SGD_LIKE, "adamw": ADAM_LIKE, "muon": ADAM_LIKE}
"""Ranges of a wrapper's base, by base."""
WRAPPERS: Mapping[str, Space] = {
    "sam": {"rho": _log(0.02, 0.5)},
    "asam": {"rho": _log(0.2, 5.0)},
    "penalty": {"rho": _log(0.02, 0.5)},
    "looksam": {"rho": _log(0.02, 0.5), "alpha": _log(0.05, 0.95)},
    "partial_sam": {"rho": _log(0.02, 0.5)},
    "msam": {"rho": _log(0.05, 5.0)},
    "last_layer": {"weight_penalty": _log(1e-4, 0.1), "activation_penalty": _log(1e-4, 0.1)},
    "ema": {"horizon": _log(20.0, 1000.0)},
    "schedule_free": {},
    "f3eo": {},
}
"""A wrapper's own ranges, added to those of its base; without any it tries its base's points."""
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
    *("partial_sam", "msam", "last_layer", "ema", "schedule_free"),
    *("adahessian", "soap", "ivon", "f3eo"),
)
"""The methods with a search space."""


def space(
    method: str,
    base: str = "sgd",
    decay: tuple[float, float] | None = None,
    rates: float = 1.0,
) -> Space:
    """The search space of a method.

    Args:
        method: one of TUNED.
        base: base optimizer of a wrapper, ignored for other methods; default "sgd".
        decay: range (low, high) of Adam's weight decay; default None, that of ADAM_LIKE.
        rates: factor on both ends of the range of learning rates; default 1.

    Raises:
        ValueError: the method has no search space.
    """
    if method not in TUNED:
        raise ValueError(f"no search space for {method!r}; choose from {', '.join(TUNED)}")
    ranges = OWN[method] if method in OWN else {**BASES[base], **WRAPPERS[method]}
    usual = ADAM_LIKE["weight_decay"]
    found = {name: _log(*decay) if decay and d is usual else d for name, d in ranges.items()}
    return found | {"lr": _log(rates * found["lr"].low, rates * found["lr"].high)}
