"""λ without units that acts where the loss is sensitive to relative changes of the weights."""

from collections.abc import Mapping

from f3eo.strength.cap import Cap
from f3eo.strength.strength import Observation, Schedule, number

FAINT = 0.01
"""Mean of λ over its value below which the structure term is not worth a measurement."""
MEMORY = 10
"""Time constant of that mean, in measured steps: single samples that are fitted let q fluctuate."""


class Sensitivity(Cap):
    """λ = min(value·min(1, (q/threshold)^order), limit·‖g‖/‖d‖) with q = √Tr(D F D)/L.

    q says by how many times its own size a sample's loss changes, to first order, over a step of
    relative length 1. It has no unit where the metric D is that of the weights
    (`f3eo.fisher.metric`): neither that of the weights nor that of the losses. Where a model has
    not fitted single samples q is small, as on text that is read once, and λ vanishes; where it has
    overfitted them q is above 1. A structure term lowers q, so λ finds its own balance.

    Most of a batch's gradient is noise that averages out over the steps, while d is steady. So d
    must be shorter than g beside a base that takes both as they are (SGD, Adam). One that
    normalizes their sum, as Muon does, bears a limit of 1 (docs/tried.md).

    Where L is not above 0, as for densities, q counts as large. Without a trace λ is the value.

    Where λ is below 1 % of the value, in the mean over ten measurements, the strength rests: F3EO
    measures nothing for a quarter of the steps so far, `rest` at most, and its steps are those of
    the base. So it has a state, saved with the optimizer: give every optimizer one of its own.

    Args:
        value: λ where the loss is sensitive; default 1.
        threshold: q from which on λ is the value; default 1.
        order: how fast λ falls below; default 4.
        limit: see `Cap`; default 0.3.
        rest: largest number of steps from one measurement to the next where λ vanishes, an integer;
            default 100. 0 never rests.
        schedule: see `Strength`.

    Raises:
        TypeError, ValueError: see `Cap`; a threshold or an order that is not above 0; a rest that
            is negative or no integer.
    """

    def __init__(
        self,
        value: float = 1.0,
        *,
        threshold: float = 1.0,
        order: float = 4.0,
        limit: float = 0.3,
        rest: int = 100,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(value, limit, schedule)
        for name, given in (("threshold", threshold), ("order", order)):
            if not 0 < number(self, name, given) < float("inf"):
                raise ValueError(f"Sensitivity needs a finite {name} > 0, received {given}")
        if number(self, "rest", rest, int) < 0:
            raise ValueError(f"Sensitivity needs a rest of 0 or more steps, received {rest}")
        self.threshold = threshold
        self.order = order
        self.rest = rest
        self.load({})

    def scheduled(self, step: int) -> float:
        """See `Strength.scheduled`; 0 while the strength rests."""
        return 0.0 if step < self._until else super().scheduled(step)

    def at(self, observed: Observation) -> float:
        """The scheduled value times min(1, (q/threshold)^order), in the scale of a mean norm."""
        factor = self._factor(observed)
        strength = super().at(observed) * factor
        if observed.measured and observed.trace is not None:
            self._measured = min(self._measured + 1, MEMORY)
            self._mean += (factor - self._mean) / self._measured
            if self._mean < FAINT:
                self._until = observed.step + min(self.rest, observed.step // 4)
        return strength

    def counters(self) -> Mapping[str, float]:
        """See `Strength.counters`."""
        return {"mean": self._mean, "measured": self._measured, "until": self._until}

    def load(self, counters: Mapping[str, float]) -> None:
        """See `Strength.load`."""
        self._mean = counters.get("mean", 0.0)
        self._measured = int(counters.get("measured", 0))
        self._until = int(counters.get("until", 0))

    def _factor(self, observed: Observation) -> float:
        if observed.trace is None or not observed.loss > 0:
            return 1.0
        sensitivity = max(float(observed.trace), 0.0) ** 0.5 / observed.loss
        return min(1.0, sensitivity / self.threshold) ** self.order
