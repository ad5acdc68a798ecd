"""The monitor: it turns what a step has measured into scalars, and gives them to its sinks."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from f3eo.closure.problem import Closure
from f3eo.fisher import Metric
from f3eo.monitor.layers import layers
from f3eo.monitor.noise import NoiseScale, record_moments
from f3eo.monitor.plain import Plain
from f3eo.monitor.quantities import QUANTITIES, Layers, Quantity, Values
from f3eo.monitor.sinks import Sink
from f3eo.optimizer import F3EO, StepRecord
from f3eo.optimizer.checks import check_generator, in_range
from f3eo.tensors import fetched

Probe = Callable[[], Any]
"""() -> a number."""

PREFIX = "f3eo/"
EVERY = 50
"""Steps from one report to the next, by default."""
NAMES = (*QUANTITIES, "noise_scale")
SAMPLES = 32
"""Samples that are measured beside an optimizer other than F3EO, by default."""
DECAY = 0.9
"""β of the averages behind the noise scale: about ten measurements."""


class Monitor:
    """Scalars of a run, every so many steps, that do not change it by a bit.

    Beside `F3EO` it takes what a step has measured anyway:

        with Monitor(optimizer, sinks=[JsonLines("run.jsonl")]):
            ...                                # the training loop, as it is

    Beside any other optimizer it measures a part of the batch by itself, where it is told to:

        monitor = Monitor(optimizer, model=model, closure=losses, sinks=[print])
        ...
        monitor.step(x, y)                     # once a step, anywhere in the loop

    | scalar | what it is |
    |---|---|
    | `f3eo/loss` | L, the mean over the samples |
    | `f3eo/gradient_norm` | ‖∇L‖ over all parameters, before `max_norm` |
    | `f3eo/trace` | Tr(D F D), D the metric of the estimator |
    | `f3eo/trace/LAYER` | its part in the parameters of a module |
    | `f3eo/trace_euclidean` | Tr F̂, D = 1 |
    | `f3eo/noise_scale` | tr Σ/‖G‖² in samples, from running averages |
    | `f3eo/memorisation/top_tenth` | share of the tenth with the longest ∇ℓ_i in the trace |
    | `f3eo/strength` | λ as the step took it |
    | `f3eo/structure_norm`, `f3eo/direction_norm` | ‖h‖ and ‖d‖, Euclidean |
    | `f3eo/cosine` | of g and h |
    | `f3eo/share_off_gradient` | ‖h⊥‖/‖h‖ = √(1 − cosine²) |

    `f3eo.fisher.estimand` has the symbols, `f3eo.monitor.quantities` each formula, and
    `f3eo.monitor.noise` the noise scale and its bias. A scalar that a step did not measure is
    absent: λ and h beside another optimizer, norms of an estimator that keeps none (`Sign`,
    `MiniBatch`, `ModelSampled`), the noise scale where samples have weights and h is measured on a
    part of them. One that is not defined is NaN (a cosine with 0).

    Args:
        optimizer: an `F3EO`, or any other one, which is not touched.
        model: the module that trains; needed beside another optimizer.
        closure: per-sample losses, `Weighted` or a likelihood, as F3EO takes them; needed beside
            another optimizer.
        every: steps from one report to the next; default 50. Beside F3EO a report waits for a
            step that measures h, `optimizer.every + optimizer.strength.rest` − 1 steps at most.
        quantities: names from `QUANTITIES` and "noise_scale"; default all.
        probes: further scalars `f3eo/NAME` by name, functions without arguments that are called at
            a report, such as `lambda: free_energy(model, closure, data, prior).per_sample`.
            Instruments (`f3eo.instruments`) do not change the run. Default none.
        sinks: functions sink(step, scalars), such as `JsonLines`, `Live`, `TensorBoard`, or
            `lambda step, scalars: wandb.log(scalars, step=step)`. What a sink raises ends the run.
        samples: largest number of samples that are measured beside another optimizer; default 32,
            drawn from the batch.
        metric: D beside another optimizer; default `Euclidean()`, Tr F̂ itself.
        generator: source of that part; default one of its own, so that the run's is not used.

    Raises:
        TypeError, ValueError: arguments that do not fit; the message names the cure.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        model: nn.Module | None = None,
        closure: Closure | None = None,
        every: int = EVERY,
        quantities: Iterable[str] | None = None,
        probes: Mapping[str, Probe] = MappingProxyType({}),
        sinks: Iterable[Sink] = (),
        samples: int | None = None,
        metric: Metric | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.every = in_range("every", every, 0, None, integer=True)
        self.quantities = _checked_names(quantities)
        self.probes = _checked_probes(probes)
        self.sinks = _checked_sinks(sinks)
        check_generator(generator)
        self.optimizer = optimizer
        self.last: dict[str, float] = {}
        """The scalars last reported, by name."""
        self.closed = False
        self._noise = NoiseScale(DECAY)
        self._table: dict[str, Quantity] = {**QUANTITIES, "noise_scale": self._noise_scale}
        self._due = 0
        self._steps = 0
        self._plain: Plain | None = None
        self._handle: RemovableHandle | None = None
        own = {"metric": metric, "generator": generator, "samples": samples}
        if isinstance(optimizer, F3EO):
            _refuse_beside_f3eo(model=model, closure=closure, **own)
            self._handle = optimizer.observe(partial(self._observe, optimizer))
        else:
            self._plain = _plain(optimizer, model, closure, **own)

    def step(self, *batch: Any) -> None:
        """Count a step beside an optimizer that is not F3EO, and report if it is due.

        Args:
            batch: arguments of the closure, with the samples in dimension 0.

        Raises:
            RuntimeError: beside F3EO, whose steps are observed; or the monitor is closed.
            ValueError, TypeError: the closure does not fit; the message names the cure.
        """
        if self.closed:
            raise RuntimeError("the monitor is closed: make a new one to go on")
        if self._plain is None:
            raise RuntimeError(
                "beside F3EO every step is observed: remove monitor.step() from the loop"
            )
        number, self._steps = self._steps, self._steps + 1
        if number % self.every == 0:
            self._report(self._plain(number, batch))

    def close(self) -> None:
        """End the observation, and close the sinks that have a `close`."""
        if self.closed:
            return
        self.closed = True
        if self._handle is not None:
            self._handle.remove()
        for sink in self.sinks:
            getattr(sink, "close", lambda: None)()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """What is averaged and counted; no state of the training."""
        own = None if self._plain is None else self._plain.generator.get_state()
        counted = {"steps": self._steps, "due": self._due}
        return {**counted, "noise": self._noise.state_dict(), "generator": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue as the monitor did that saved this.

        Raises:
            ValueError: the state of something else.
        """
        if state.keys() != self.state_dict().keys():
            raise ValueError(
                f"not a state dict of a Monitor (keys {sorted(state)}): load what its state_dict() "
                f"returned"
            )
        self._steps, self._due = state["steps"], state["due"]
        self._noise.load_state_dict(state["noise"])
        if self._plain is not None and state["generator"] is not None:
            self._plain.generator.set_state(state["generator"])

    def _observe(self, optimizer: F3EO, record: StepRecord) -> None:
        """Report a step of F3EO if it is due and measured, or if none that measures has come."""
        if record.number + self.every < self._due:  # the optimizer went back to an earlier state
            self._due = record.number
        late, strength = record.number - self._due, optimizer.strength
        most = optimizer.every - 1 + (strength.rest if strength.value else 0)
        if late >= (0 if record.structure is not None else most):
            self._due = (record.number // self.every + 1) * self.every
            self._report(record)

    @torch.no_grad()
    def _report(self, record: StepRecord) -> None:
        found: Values = {}
        owners = self._layers(record)
        for name in self.quantities:
            found |= self._table[name](record, owners)
        tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        read = dict(zip(tensors, fetched(list(tensors.values())), strict=True)) if tensors else {}
        self.last = {PREFIX + name: float(read.get(name, found[name])) for name in found}
        self.last |= {PREFIX + name: float(probe()) for name, probe in self.probes.items()}
        for sink in self.sinks:
            sink(record.number, dict(self.last))

    def _noise_scale(self, record: StepRecord, owners: Layers) -> Values:
        found = record_moments(record)
        if found is None:
            return {}
        self._noise.update(found)
        return {"noise_scale": self._noise.value}

    def _layers(self, record: StepRecord) -> Layers:
        """Read anew at every report: a user may add or replace parameters."""
        found = layers(zip(record.names, record.parameters, strict=True))
        model = self.optimizer.model if isinstance(self.optimizer, F3EO) else None
        return found if model is None else {**found, **layers(model.named_parameters())}


def _checked_names(quantities: Iterable[str] | None) -> tuple[str, ...]:
    if isinstance(quantities, str):
        raise TypeError(f"quantities is a list of names, received {quantities!r}: use a list")
    chosen = NAMES if quantities is None else tuple(quantities)
    if unknown := [name for name in chosen if name not in NAMES]:
        raise ValueError(f"unknown quantities {unknown}; choose from {', '.join(NAMES)}")
    return chosen


def _checked_probes(probes: Mapping[str, Probe]) -> dict[str, Probe]:
    for name, probe in probes.items():
        if not callable(probe):
            raise TypeError(f"a probe is a function without arguments, received {name}={probe!r}")
        if name in NAMES:
            raise ValueError(f"{name!r} is a quantity of the monitor: give the probe another name")
    return dict(probes)


def _checked_sinks(sinks: Iterable[Sink]) -> tuple[Sink, ...]:
    found = (sinks,) if callable(sinks) else tuple(sinks)
    for sink in found:
        if not callable(sink):
            raise TypeError(
                f"a sink is a function of step and scalars, received {sink!r}; a file is "
                f"JsonLines(path)"
            )
    return found


def _plain(
    optimizer: Any,
    model: nn.Module | None,
    closure: Closure | None,
    *,
    metric: Metric | None,
    generator: Generator | None,
    samples: int | None,
) -> Plain:
    if not isinstance(model, nn.Module) or not callable(closure):
        raise TypeError(
            f"beside {type(optimizer).__name__} the monitor measures by itself: pass model=module "
            f"and closure=a function that returns per-sample losses, received "
            f"model={type(model).__name__}, closure={closure!r}"
        )
    count = SAMPLES if samples is None else in_range("samples", samples, 0, None, integer=True)
    own = generator if generator is not None else Generator().manual_seed(0)
    return Plain(model, closure, count, metric, own)


def _refuse_beside_f3eo(**given: Any) -> None:
    if names := [name for name, value in given.items() if value is not None]:
        raise TypeError(
            f"beside F3EO the monitor takes what the step measures: leave out {', '.join(names)}"
        )
