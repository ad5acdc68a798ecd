"""Points of a search space: a scrambled Sobol sequence, as `optuna` draws it."""

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution


def points(space: Mapping[str, BaseDistribution], name: str, count: int) -> list[dict[str, Any]]:
    """The first points of the sequence of a name, with numbers in three digits.

    More points extend the list. The first is outside of the sequence: optuna learns the space from
    it, so callers put the defaults in its place.

    Args:
        space: by option, the distribution it is drawn from.
        name: determines the seed of the scrambling, a hash.
        count: number of points.
    """
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.QMCSampler(
                qmc_type="sobol", scramble=True, seed=seed, warn_independent_sampling=False
            )
        study, found = optuna.create_study(sampler=sampler), []
        for _ in range(count):
            trial = study.ask(dict(space))
            study.tell(trial, 0.0)
            found.append({option: short(value) for option, value in trial.params.items()})
    finally:
        optuna.logging.set_verbosity(verbosity)
    return found


def short(value: Any) -> Any:
    """A number in three digits; other values as they are."""
    return float(f"{value:.3g}") if isinstance(value, float) else value
