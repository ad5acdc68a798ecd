"""Training on one task after another: parts that add to every step what earlier tasks say.

`F3EO(..., past=part)` takes one or several; `optimizer.consolidate(closure, data)` stands between
two tasks. `Elastic` serves a loop with any other optimizer, too.
"""

from f3eo.continual.balanced import Balanced
from f3eo.continual.elastic import Elastic
from f3eo.continual.exact import Exact
from f3eo.continual.from_steps import FromSteps
from f3eo.continual.importance import Importance
from f3eo.continual.memory import Memory
from f3eo.continual.path_integral import PathIntegral
from f3eo.continual.rehearsal import Rehearsal
from f3eo.continual.reservoir import Reservoir
from f3eo.continual.ring import Ring
from f3eo.continual.running_mean import RunningMean
from f3eo.optimizer.past import Joined, Past, Present

__all__ = [
    "Balanced",
    "Elastic",
    "Exact",
    "FromSteps",
    "Importance",
    "Joined",
    "Memory",
    "Past",
    "PathIntegral",
    "Present",
    "Rehearsal",
    "Reservoir",
    "Ring",
    "RunningMean",
]
