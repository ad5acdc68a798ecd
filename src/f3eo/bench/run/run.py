"""A run: all data that determine its result, with a key."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from f3eo.bench.run.names import first
from f3eo.bench.run.place import Place, Precision

Split = Literal["test", "validation"]
Equal = Literal["cost", "time"]


@dataclass(frozen=True)
class Run:
    """A method on a task with one seed; equal runs give equal results.

    Args:
        task: name of the task.
        method: name of the method.
        seed: seed of initialisation, order of batches, and the method's random numbers.
        budget: cost of the run, in plain gradients of one batch.
        batch: samples per step.
        options: every hyper-parameter of the method.
        evaluations: times the model is measured during training; default 25.
        probe: training samples on which train loss and Tr F are measured; default 1000.
        split: "test", or "validation" to hold out training samples (tuning); default "test".
        price: time of one step over that of a plain gradient step; the budget is then time. Default
            None: the budget is a number of plain gradients, counted by `f3eo.bench.methods.count`.
        variant: label of the difference from the tuned method; default "".
        device, precision: see `Place`; `device` is that of a machine, never "auto".
    """

    task: str
    method: str
    seed: int
    budget: int
    batch: int
    options: Mapping[str, Any]
    evaluations: int = 25
    probe: int = 1000
    split: Split = "test"
    price: float | None = None
    variant: str = ""
    device: str = "cpu"
    precision: Precision = "float32"

    @property
    def place(self) -> Place:
        """Device and precision."""
        return Place(self.device, self.precision)

    @property
    def equal(self) -> Equal:
        """What compared methods may spend equally: "cost" or "time"."""
        return "cost" if self.price is None else "time"

    @property
    def contest(self) -> tuple[str, str]:
        """What its result is compared within: the task, and what is held equal."""
        return self.task, self.equal

    @property
    def contender(self) -> tuple[str, str]:
        """What is compared: the method and its variant."""
        return self.method, self.variant

    @property
    def setting(self) -> dict[str, Any]:
        """Values that must be equal for methods to be compared."""
        return {
            "budget": self.budget,
            "batch": self.batch,
            "evaluations": self.evaluations,
            "probe": self.probe,
            "split": self.split,
            **self.place.changes,
        }

    @property
    def config(self) -> dict[str, Any]:
        """The full configuration, as rows store it."""
        price = {} if self.price is None else {"price": self.price}
        return {**self.setting, **price, "options": dict(self.options)}

    @property
    def key(self) -> str:
        """Sixteen hex digits that identify this run; the same in every version of f3eo."""
        facts = asdict(self)
        variant, facts["options"] = first(self.method, self.variant, self.options)
        facts["variant"] = variant
        if self.price is None:  # rows stored before prices existed keep their key
            del facts["price"]
        if not variant:  # as rows stored before variants existed
            del facts["variant"]
        for name in {"device", "precision"} - set(self.place.changes):  # as before there were any
            del facts[name]
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
