"""λ as the noise that the posterior bears: the optimum of the free energy."""

from collections.abc import Mapping
from math import inf

from f3eo.control.running_mean import running_mean
from f3eo.strength import Cap, Observation
from f3eo.strength.strength import number


def optimal_noise(trace: float, parameters: int, samples: int, variance: float = inf) -> float:
    """α* = P/(N T + P/s²), where N·½αT + ½P(α/s² − log α) is least over α.

    Args:
        trace: T = Tr(D F D), at least 0.
        parameters: P, the entries that carry noise.
        samples: N, training samples.
        variance: s² of the prior, in units of D²; default ∞, a prior without a scale.

    Returns:
        α*, in units of D²; ∞ where nothing bounds it.
    """
    cost = samples * trace + parameters / variance
    return parameters / cost if cost > 0 else inf


class FreeEnergy(Cap):
    """λ from the noise α* at which the free energy is least, solved for at every measured step.

    With the posterior q = N(θ, α D²) over P parameters, N samples and T = Tr(D F D):

    1. E_q L = L + ½αT to second order, with the Gauss-Newton matrix as F. The prior N(0, s² D²)
       gives KL = ½P(α/s² − log α) + const. So α* = P/(N T + P/s²).
    2. θ descends L + ½α*T along g + α* h at power 2, where h = ½∇T.
    3. At power p, norms alike, h_p = T^(p/2 − 1) h_2. So λ = α* T^(1 − p/2): α*·√T in the scale of
       a mean norm.

    With D in the units of the parameters and s = 1, the default, the prior has the scale of the
    parameters themselves: Σ (θ/D)² is P by rows and elementwise, so KL does not depend on θ, and
    relative noise stays below 1. A log-uniform prior (1506.02557) is s = ∞ for small α:
    α* = P/(N T), which is far above 1 where P is above N.

    In the Euclidean metric α is the variance σ² of isotropic noise under the prior N(0, s²):
    σ²* = P/(N T + P/s²). Its pull on θ is a weight decay of 1/(N s²) and belongs to the base.

    T is a running mean. The empirical F stands for the Gauss-Newton matrix: the two agree where the
    model's probabilities are those of the labels. The structure term is at most limit·‖g‖ long.

    It has a state, the running mean: give every optimizer one of its own. It is saved with the
    optimizer.

    Args:
        samples: N, the number of training samples: a fact, not a choice; at least 1.
        variance: s², above 0, in units of D²; default 1.
        memory: time constant of the running mean, in measured steps, at least 1; default 20.
        limit: see `Cap`; default 1.

    Attributes:
        noise: α* as last solved for; 0 before the first measurement.

    Raises:
        TypeError, ValueError: no integer, or a number outside these ranges; see `Cap`.

    Source: f3eo-theory, free energy; Kingma et al. 2015 (1506.02557) for noise relative to θ.
    """

    def __init__(
        self, samples: int, *, variance: float = 1.0, memory: float = 20.0, limit: float = 1.0
    ) -> None:
        super().__init__(1.0, limit)
        if number(self, "samples", samples, int) < 1:
            raise ValueError(
                f"FreeEnergy needs the number of training samples, at least 1, received {samples}"
            )
        if not number(self, "variance", variance) > 0:
            raise ValueError(f"FreeEnergy needs a variance > 0, received {variance}")
        if not 1 <= number(self, "memory", memory) < inf:
            raise ValueError(f"FreeEnergy needs a finite memory >= 1, received {memory}")
        self.samples = samples
        self.variance = variance
        self.memory = memory
        self.load({})

    def at(self, observed: Observation) -> float:
        """α*·T^(1 − p/2); 0 where T is 0."""
        if observed.measured and observed.trace is not None:
            self._measured += 1
            trace = float(observed.trace)
            self._trace = running_mean(self._trace, self._measured, trace, self.memory)
            size = observed.parameters
            self.noise = optimal_noise(self._trace, size, self.samples, self.variance)
        if not self._trace > 0:
            return 0.0
        return self.noise * self._trace ** (1 - observed.power / 2)

    def counters(self) -> Mapping[str, float]:
        """See `Strength.counters`: α*, the running mean and its number of values."""
        return {"noise": self.noise, "trace": self._trace, "measured": self._measured}

    def load(self, counters: Mapping[str, float]) -> None:
        """See `Strength.load`."""
        self.noise = counters.get("noise", 0.0)
        self._trace = counters.get("trace", 0.0)
        self._measured = int(counters.get("measured", 0))
