"""The gradient noise scale of a run: tr Σ/‖G‖², from averages over measurements."""

from collections.abc import Mapping
from math import inf, isfinite, nan
from typing import NamedTuple

from f3eo.optimizer import StepRecord


class Moments(NamedTuple):
    """Estimates without bias, G = E∇ℓ, Σ = Cov ∇ℓ.

    Attributes:
        noise: tr Σ.
        signal: ‖G‖²; it may be negative.
    """

    noise: float
    signal: float


def moments(mean_squared: float, squared: float, shares: float) -> Moments | None:
    """tr Σ and ‖G‖² from one batch of independent samples.

    With m = Σ_i ω_i ‖∇ℓ_i‖² and s = Σ_i ω_i², which is 1/B without weights,

        E m = ‖G‖² + tr Σ        E‖∇L‖² = ‖G‖² + s tr Σ

    tr Σ ≈ (m − ‖∇L‖²)/(1 − s) and ‖G‖² ≈ (‖∇L‖² − s m)/(1 − s). For s = 1/B the first is
    B/(B − 1) (m − ‖∇L‖²). m may be that of a random part of the batch.

    Args:
        mean_squared: m, that is Tr F̂.
        squared: ‖∇L‖² over the same parameters.
        shares: s, in (0, 1].

    Returns:
        None for a single sample, which says nothing of Σ.

    Source: McCandlish et al. 2018 (1812.06162), appendix A.1.
    """
    if not shares < 1:
        return None
    rest = 1 - shares
    return Moments((mean_squared - squared) / rest, (squared - shares * mean_squared) / rest)


def record_moments(record: StepRecord) -> Moments | None:
    """tr Σ and ‖G‖² over the structured parameters; None where the step does not tell.

    It tells neither without the norms of samples, nor where what was done to .grad is no factor,
    nor where samples have weights and norms are of a part of them.

    Args:
        record: of the step.
    """
    norms, factor = record.norms, record.factor
    if norms is None or not factor:
        return None
    mean_squared, shares = norms.euclidean_trace(), norms.squared_shares()
    if mean_squared is None or shares is None:
        return None
    return moments(float(mean_squared), record.products.gg / factor**2, shares)


class NoiseScale:
    """B_simple = tr Σ/‖G‖² in samples, the ratio of two running averages.

    x̄ ← β x̄ + (1 − β) x at every measurement, for tr Σ and for ‖G‖². Both estimates have no bias,
    and so have their averages, but for the drift of the run: an average is about 1/(1 − β)
    measurements old. The ratio of averages over k measurements has a bias of order 1/k. A ratio of
    single measurements would have none of a finite mean, since ‖G‖² may be near 0 there. (Both
    averages start at 0; the correction for that cancels.)

    Args:
        decay: β in [0, 1); 0 is the last measurement alone.

    Source: McCandlish et al. 2018 (1812.06162), section 2.2 and appendix A.1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._averages = Moments(0.0, 0.0)

    def update(self, found: Moments | None) -> None:
        """Add a measurement; one that is missing or not finite is left out."""
        if found is None or not all(map(isfinite, found)):
            return
        pairs = zip(self._averages, found, strict=True)
        self._averages = Moments(*(self.decay * x + (1 - self.decay) * y for x, y in pairs))

    @property
    def value(self) -> float:
        """B_simple; infinite where the noise leaves no sign of ‖G‖², NaN before a measurement."""
        noise, signal = self._averages
        if noise == signal == 0:
            return nan
        return max(noise, 0.0) / signal if signal > 0 else inf

    def state_dict(self) -> dict[str, float]:
        """Both averages."""
        return self._averages._asdict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore both averages."""
        self._averages = Moments(**state)
