"""How much of the structure direction an update takes: λ as a ratio, a distance or a number."""

from f3eo.strength.cap import Cap
from f3eo.strength.fitted import Fitted
from f3eo.strength.fixed import Fixed
from f3eo.strength.ratio import Ratio
from f3eo.strength.sensitivity import Sensitivity
from f3eo.strength.strength import Observation, Strength
from f3eo.strength.warmup import Warmup

__all__ = [
    "Cap",
    "Fitted",
    "Fixed",
    "Observation",
    "Ratio",
    "Sensitivity",
    "Strength",
    "Warmup",
]
