"""A stream run: all data that determine the result of a learner on a stream, with a key."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Kind = Literal["result", "trial"]
Equal = Literal["steps", "time"]
KINDS, EQUALS = get_args(Kind), get_args(Equal)


@dataclass(frozen=True)
class StreamRun:
    """A learner on a stream with one seed; equal runs give equal results.

    Args:
        stream: name of the stream.
        learner: name of the learner.
        seed: of the stream's stages, of initialisation, order of batches, and the learner's random
            numbers.
        options: every option of the learner.
        stages: number of stages, from the first on.
        batch: samples per step.
        epochs: passes through the training samples of a stage.
        samples: training samples of a stage; default None, all.
        tests: samples of a stage that it is judged on, drawn by the seed; default None, all.
        kind: "result" on test sets, or "trial" on held-out training samples; default "result".
        price: time of one step over that of an SGD step. A stage then takes as many steps as fit
            into the time of its SGD steps. Default None: equal steps.
    """

    stream: str
    learner: str
    seed: int
    options: Mapping[str, Any]
    stages: int
    batch: int
    epochs: int
    samples: int | None = None
    tests: int | None = None
    kind: Kind = "result"
    price: float | None = None

    @property
    def equal(self) -> Equal:
        """What compared learners spend equally: "steps" or "time"."""
        return "steps" if self.price is None else "time"

    @property
    def contest(self) -> tuple[str, str]:
        """What its result is compared within: the stream, and what is held equal."""
        return self.stream, self.equal

    @property
    def contender(self) -> tuple[str]:
        """What is compared: the learner."""
        return (self.learner,)

    @property
    def setting(self) -> dict[str, Any]:
        """Values that must be equal for learners to be compared."""
        names = ("kind", "equal", "stages", "batch", "epochs", "samples", "tests")
        return {name: getattr(self, name) for name in names}

    @property
    def config(self) -> dict[str, Any]:
        """The full configuration, as rows store it."""
        price = {} if self.price is None else {"price": self.price}
        return {**self.setting, **price, "options": dict(self.options)}

    @property
    def key(self) -> str:
        """Sixteen hex digits that identify this run."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def epoch(self, samples: int) -> int:
        """Steps of one pass through N samples, ⌊N/B⌋; an incomplete batch is dropped."""
        return samples // min(self.batch, samples)

    def steps(self, samples: int) -> int:
        """Steps of a stage of N samples: ⌊N/B⌋ · epochs, at equal time over the price; at least 1.

        A price below 1 counts as 1: no learner sees more samples than SGD.
        """
        price = 1.0 if self.price is None else max(self.price, 1.0)
        return max(1, int(self.epoch(samples) * self.epochs / price))
