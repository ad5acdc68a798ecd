"""λ without units that acts where the loss is sensitive to relative changes of the weights."""

from f3eo.strength.cap import Cap
from f3eo.strength.strength import Observation, Schedule, number


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

    Args:
        value: λ where the loss is sensitive; default 1.
        threshold: q from which on λ is the value; default 1.
        order: how fast λ falls below; default 4.
        limit: see `Cap`; default 0.3.
        schedule: see `Strength`.

    Raises:
        TypeError, ValueError: see `Cap`; a threshold or an order that is not above 0.
    """

    def __init__(
        self,
        value: float = 1.0,
        *,
        threshold: float = 1.0,
        order: float = 4.0,
        limit: float = 0.3,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(value, limit, schedule)
        for name, given in (("threshold", threshold), ("order", order)):
            if not 0 < number(self, name, given) < float("inf"):
                raise ValueError(f"Sensitivity needs a finite {name} > 0, received {given}")
        self.threshold = threshold
        self.order = order

    def at(self, observed: Observation) -> float:
        """The scheduled value times min(1, (q/threshold)^order), in the scale of a mean norm."""
        return super().at(observed) * self._factor(observed)

    def _factor(self, observed: Observation) -> float:
        if observed.trace is None or not observed.loss > 0:
            return 1.0
        sensitivity = max(float(observed.trace), 0.0) ** 0.5 / observed.loss
        return min(1.0, sensitivity / self.threshold) ** self.order
