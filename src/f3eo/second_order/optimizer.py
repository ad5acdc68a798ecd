"""What all second-order optimizers share: a step is measured, tried, and kept or taken back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from f3eo.closure.evaluate import evaluate
from f3eo.closure.output import Output
from f3eo.closure.problem import Closure, Problem
from f3eo.closure.replay import Replay
from f3eo.closure.snapshot import Snapshot
from f3eo.curvature.conjugate_gradients import Solution
from f3eo.curvature.quadratic import Quadratic
from f3eo.curvature.vectors import unflatten
from f3eo.optimizer.checks import (
    check_alone,
    check_model,
    check_parameters,
    check_policy,
    in_range,
    tell_skipped,
)
from f3eo.second_order.damping import accepts, agreement
from f3eo.second_order.report import Report
from f3eo.tensors import fetched


class SecondOrder(Optimizer, ABC):
    """θ ← θ + lr · d with d from a quadratic model of the loss, if the loss does not increase.

    The closure runs twice: once for gradient and curvature, once for the loss at the new place,
    with the same random numbers (dropout) and without a second update of buffers.

    Args:
        model, lr, max_iterations, tolerance, on_nonfinite: see the optimizers.
    """

    damping: float = 0.0
    radius: float = inf
    generator: torch.Generator | None = None

    def __init__(
        self,
        model: nn.Module | Iterable[Any],
        lr: float,
        max_iterations: int,
        tolerance: float,
        on_nonfinite: str,
    ) -> None:
        if lr != 0:
            in_range("lr", lr, 0.0, None)
        self.max_iterations = in_range("max_iterations", max_iterations, 0, None, integer=True)
        self.tolerance = in_range("tolerance", tolerance, 0.0, 1.0)
        self.on_nonfinite = check_policy(on_nonfinite)
        self.model = model if isinstance(model, nn.Module) else None
        check_model(self.model)
        super().__init__(model.parameters() if isinstance(model, nn.Module) else model, {"lr": lr})
        self.steps = 0
        """Steps made, rejected ones counted, skipped ones not."""
        self.skipped = 0
        """Steps skipped because something was not finite."""
        self.report: Report | None = None
        """What the last step did; None before the first."""

    @abstractmethod
    def _models(self, output: Output, parameters: list[Tensor]) -> list[Quadratic]:
        """Quadratic models of the loss, each on parameters of its own."""

    @abstractmethod
    def _minimised(self, model: Quadratic, rounding: float) -> Solution:
        """The step a model asks for; `rounding` is what the loss cannot resolve."""

    @abstractmethod
    def _adapt(self, report: Report, solutions: list[Solution]) -> None:
        """Trust the next model more or less."""

    # One step.

    def step(self, closure: Closure | None = None, *batch: Any) -> Tensor:  # pyright: ignore
        """Measure, solve, try, and keep the new parameters or put the old ones back.

        Args:
            closure: called with `batch`; runs the forward pass once and returns a likelihood or
                per-sample losses (dimension 0 counts the samples). It does not call `backward`.
            batch: tensors, or nestings of them, with the samples in dimension 0.

        Returns:
            The mean loss before the step, detached.

        Raises:
            TypeError: no closure, or one that returns something else.
            FloatingPointError: something was not finite and `on_nonfinite="raise"`.
        """
        if not callable(closure):
            raise TypeError(
                f"{type(self).__name__}.step needs a function that returns a likelihood or "
                f"per-sample losses, received {closure!r}; the batch follows it: "
                f"step(closure, *batch)"
            )
        check_alone(self.param_groups)
        parameters, rates = self._trained()
        inside = [True] * len(parameters)
        problem = Problem(closure, batch, parameters, inside, self.model, self.generator)
        snapshot = Snapshot(problem)
        saved = [p.detach().clone() for p in parameters]
        try:
            return self._tried(problem, rates, saved, snapshot)
        except BaseException:
            _put(parameters, saved)
            snapshot.restore()
            raise

    def _tried(
        self, problem: Problem, rates: list[float], saved: list[Tensor], snapshot: Snapshot
    ) -> Tensor:
        found: list[Output] = []

        def run() -> list[Tensor]:
            found[:] = [evaluate(problem, per_sample=False, differentiable=True)]
            return [found[0].mean()]

        replay = Replay(run, problem)
        loss = replay()[0].detach()
        unit = torch.finfo(loss.dtype).eps
        with torch.enable_grad():
            models = self._models(found.pop(), problem.parameters)
        before, *squares = fetched([loss, *(m.gradient @ m.gradient for m in models)])
        if not isfinite(before) or not isfinite(sum(squares)):
            return self._skip("the gradient" if isfinite(before) else "the loss", loss, snapshot)

        solutions = [self._minimised(m, unit * abs(before)) for m in models]
        sizes = [p.numel() for p in problem.parameters]
        places = [m.parameters for m in models]
        steps = [
            _rated(s.step, own, sizes, rates) for s, own in zip(solutions, places, strict=True)
        ]
        promised = [m.reduction(step) for m, step in zip(models, steps, strict=True)]
        predicted = sum(fetched(promised))
        if not isfinite(predicted):
            return self._skip("the curvature", loss, snapshot)
        del models, promised  # and with them the graph, before the next one is made

        for own, step in zip(places, steps, strict=True):
            _move([problem.parameters[i] for i in own], step)
        (after,) = fetched([replay()[0].detach()])
        found.clear()
        actual = before - after
        ratio = agreement(actual, predicted, before, unit)
        accepted = accepts(ratio, actual)
        if not accepted:
            _put(problem.parameters, saved)
        self.steps += 1
        self.report = Report(
            loss_before=before,
            loss_after=after,
            predicted=predicted,
            actual=actual,
            ratio=ratio,
            damping=self.damping,
            radius=self.radius,
            iterations=sum(s.iterations for s in solutions),
            negative_curvature=min((s.curvature for s in solutions), default=0.0),
            accepted=accepted,
        )
        self._adapt(self.report, solutions)
        return loss

    def _trained(self) -> tuple[list[Tensor], list[float]]:
        """Parameters that require a gradient, and the learning rate of each."""
        pairs = [
            (p, float(group["lr"]))
            for group in self.param_groups
            for p in group["params"]
            if p.requires_grad
        ]
        if len(devices := {p.device for p, _ in pairs}) > 1:
            raise ValueError(
                f"{type(self).__name__} needs all parameters on one device, received "
                f"{sorted(map(str, devices))}: conjugate gradients work on them in a row"
            )
        return [p for p, _ in pairs], [rate for _, rate in pairs]

    def _skip(self, what: str, loss: Tensor, snapshot: Snapshot) -> Tensor:
        if self.on_nonfinite == "raise":
            raise FloatingPointError(
                f"{what} is not finite: check the data and the initial weights, or use "
                f'on_nonfinite="skip"'
            )
        snapshot.restore_buffers()
        self.skipped += 1
        tell_skipped(what, self, stacklevel=5)
        return loss

    # Groups, state, copies.

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; refused as at construction."""
        super().add_param_group(param_group)
        try:
            check_parameters(self.param_groups, self.model)
        except ValueError:
            self.param_groups.pop()
            raise

    def _own_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("damping", "radius", "steps", "skipped")}

    def state_dict(self) -> dict[str, Any]:
        """State of a torch optimizer, and "second_order": damping, radius, counters."""
        return {**super().state_dict(), "second_order": self._own_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it.

        Raises:
            ValueError: a state dict of another optimizer.
        """
        own = state_dict.get("second_order")
        if own is None or own.keys() != self._own_state().keys():
            raise ValueError(
                f"not a state dict of {type(self).__name__} (keys {sorted(state_dict)}): load one "
                f"that its state_dict() gave"
            )
        super().load_state_dict(state_dict)
        self._restore(own)

    def _restore(self, own: dict[str, Any]) -> None:
        for name, value in own.items():
            setattr(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        # torch's own keeps groups and state alone; hooks stay behind, as they do there.
        hooks = {key for key in self.__dict__ if key.startswith("_optimizer_")}
        dropped = hooks | {"_zero_grad_profile_name", "step", "_opt_called"}
        return {k: v for k, v in self.__dict__.items() if k not in dropped}


def _rated(step: Tensor, places: list[int], sizes: list[int], rates: list[float]) -> Tensor:
    """The step times every parameter's learning rate."""
    parts = step.split([sizes[i] for i in places])
    return torch.cat([rates[i] * part for i, part in zip(places, parts, strict=True)])


def _move(parameters: list[Tensor], step: Tensor) -> None:
    with torch.no_grad():
        for p, d in zip(parameters, unflatten(step, parameters), strict=True):
            p.add_(d)


def _put(parameters: list[Tensor], values: list[Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value)
