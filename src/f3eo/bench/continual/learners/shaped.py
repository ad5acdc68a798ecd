"""Pre-shaping: flatten the landscape in the last part of the first stage, then train plainly.

What is measured is what later stages forget. After 2605.02105, where a model that is pretrained
with sharpness-aware steps, or with those in the last part alone, forgets less in fine-tuning.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from f3eo.bench.continual.learners.learner import Learner, Peer, Space
from f3eo.bench.continual.learners.spaces import RADIUS, SGD, SGD_RATE, STRUCTURE
from f3eo.bench.methods import METHODS, Closure, Stepper
from f3eo.bench.methods.method import GradientStepper, Source


class Shaped(Learner):
    """One method in the last part of the first stage, another one before and ever after.

    Args:
        shaping: the stepper of that part.
        plain: all other steps; the same parameters, and the same state of one base optimizer.
        share: of the steps of the first stage that shape, in (0, 1].

    Raises:
        ValueError: a share out of range.
    """

    def __init__(self, shaping: Stepper, plain: Stepper, share: float) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share is a part of the first stage in (0, 1], received {share}")
        self.shaping, self.plain, self.share = shaping, plain, share
        self.optimizers = shaping.optimizers
        self._taken, self._shaped = 0, range(0)

    def begin(self, stage: int, steps: int) -> None:
        """Plan which steps shape: the last of the first stage, none of a later one."""
        last = steps if stage == 0 else 0
        self._taken, self._shaped = 0, range(last - round(self.share * last), last)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """A step of the method whose turn it is."""
        stepper = self.shaping if self._taken in self._shaped else self.plain
        self._taken += 1
        return stepper.step(closure, x, y)


def _peer(method: str, name: str, label: str, colour: str, base: str, space: Space) -> Peer:
    inner = METHODS[method]

    def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Shaped:
        own = {name: value for name, value in options.items() if name != "share"}
        shaping = inner.build(model, own, seed)
        plain = GradientStepper(getattr(shaping.optimizers[0], base))
        return Shaped(shaping, plain, options["share"])

    return Peer(
        name=name,
        label=label,
        colour=colour,
        kind="plain",
        source=Source("f3eo", f"{__name__}.Shaped", "arXiv 2605.02105"),
        defaults={**inner.defaults, **SGD, "share": 0.2},
        space={**SGD_RATE, **space},
        build=build,
        note=f"{inner.label} in the last fifth of the first stage, its base before and after",
        idle=inner.idle,
    )


PEERS = (
    _peer("f3eo", "f3eo_shaped", "F3EO, then SGD", "#f06292", "base", STRUCTURE),
    _peer("sam", "sam_shaped", "SAM, then SGD", "#b26a00", "base_optimizer", RADIUS),
)
