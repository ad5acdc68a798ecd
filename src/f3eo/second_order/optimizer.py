"""One step of a second-order optimizer: measure, solve, try, keep or take back."""

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
    WRAPPERS,
    check_alone,
    check_model,
    check_parameters,
    in_range,
)
from f3eo.optimizer.nonfinite import check_policy, skip
from f3eo.second_order.damping import accepts, agreement
from f3eo.second_order.report import Report
from f3eo.tensors import fetched


class SecondOrder(Optimizer, ABC):
    """θ ← θ + lr · d, with d from a quadratic model of the loss, if the loss does not increase.

    One step:

    1. Measure: run the closure; L(θ), and m_b(d) = L + ⟨g_b, d⟩ + ½ ⟨d, B_b d⟩ for each block b of
       parameters.
    2. Solve: d_b ≈ argmin m_b(d), by conjugate gradients; then d_b ← lr · d_b. The predicted
       reduction is Σ_b (m_b(0) − m_b(d_b)).
    3. Try: θ' = θ + d; run the closure again with the same random numbers (dropout) and without a
       second update of buffers; L(θ').
    4. Keep θ' if L(θ') ≤ L(θ) and ρ, actual over predicted reduction, is large enough
       (`f3eo.second_order.damping`); otherwise take it back to θ.
    5. Adapt damping or radius to ρ.

    A step is skipped if the loss, a gradient or the predicted reduction is not finite. If the
    closure raises, parameters, buffers, random states and .grad are restored.

    Args:
        model: a module, or parameters or parameter groups.
        lr: factor on the step, ≥ 0, per group.
        max_iterations: largest number of matrix-vector products of a block in a step.
        tolerance: relative residual at which conjugate gradients stop, in (0, 1].
        on_nonfinite: "skip" or "raise".

    Raises:
        TypeError, ValueError: an argument is out of range.
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
        check_model(self.model, WRAPPERS)
        super().__init__(model.parameters() if isinstance(model, nn.Module) else model, {"lr": lr})
        self.steps = 0
        """Number of steps, kept or taken back, without those skipped."""
        self.skipped = 0
        """Number of steps skipped because a value was not finite."""
        self.report: Report | None = None
        """Report of the last step; None before the first."""

    @abstractmethod
    def _models(self, output: Output, parameters: list[Tensor]) -> list[Quadratic]:
        """Quadratic models of the loss on disjoint blocks of the parameters."""

    @abstractmethod
    def _minimise(self, model: Quadratic, rounding: float) -> Solution:
        """Minimise a model; `rounding` is the smallest change of the loss that is resolved."""

    @abstractmethod
    def _adapt(self, report: Report, solutions: list[Solution]) -> None:
        """Set the damping or radius of the next step."""

    # One step.

    def step(self, closure: Closure | None = None, *batch: Any) -> Tensor:  # pyright: ignore
        """Make one step; see the class for its parts.

        Args:
            closure: called with `batch`; runs the forward pass once and returns a likelihood or
                per-sample losses (dimension 0 counts the samples). It does not call `backward`.
            batch: tensors, or nestings of them, with the samples in dimension 0.

        Returns:
            The mean loss before the step, detached.

        Raises:
            TypeError: the closure is missing or returns something else.
            FloatingPointError: a value is not finite and `on_nonfinite="raise"`.
        """
        if not callable(closure):
            raise TypeError(
                f"{type(self).__name__}.step needs a function that returns a likelihood or "
                f"per-sample losses, received {closure!r}; the batch follows it: "
                f"step(closure, *batch)"
            )
        check_alone(self.param_groups)
        parameters, rates = self._trained()
        structured = [True] * len(parameters)
        problem = Problem(closure, batch, parameters, structured, self.model, self.generator)
        snapshot = Snapshot(problem)
        saved = [p.detach().clone() for p in parameters]
        try:
            return self._try_step(problem, rates, saved, snapshot)
        except BaseException:
            _write(parameters, saved)
            snapshot.restore()
            raise

    def _try_step(
        self, problem: Problem, rates: list[float], saved: list[Tensor], snapshot: Snapshot
    ) -> Tensor:
        replay = Replay(lambda: evaluate(problem, per_sample=False, differentiable=True), problem)

        # 1. Measure.
        output = replay()
        loss = output.mean().detach()
        with torch.enable_grad():
            models = self._models(output, problem.parameters)
        before, *squares = fetched([loss, *(m.gradient @ m.gradient for m in models)])
        if not isfinite(before):
            return self._skip("the loss", loss, snapshot)
        if not isfinite(sum(squares)):
            return self._skip("the gradient", loss, snapshot)

        # 2. Solve.
        unit = torch.finfo(loss.dtype).eps
        solutions = [self._minimise(m, unit * abs(before)) for m in models]
        blocks = [m.parameters for m in models]
        steps = [
            _scale(solution.step, [problem.parameters[i] for i in block], [rates[i] for i in block])
            for solution, block in zip(solutions, blocks, strict=True)
        ]
        reductions = [m.reduction(step) for m, step in zip(models, steps, strict=True)]
        predicted = sum(fetched(reductions))
        if not isfinite(predicted):
            return self._skip("the curvature", loss, snapshot)
        del output, models  # frees the graph before the next one is built

        # 3. Try.
        for block, step in zip(blocks, steps, strict=True):
            _add([problem.parameters[i] for i in block], step)
        (after,) = fetched([replay().mean().detach()])

        # 4. Keep or take back.
        actual = before - after
        ratio = agreement(actual, predicted, before, unit)
        accepted = accepts(ratio, actual)
        if not accepted:
            _write(problem.parameters, saved)
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

        # 5. Adapt.
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
                f"{sorted(map(str, devices))}: conjugate gradients work on one flat vector"
            )
        return [p for p, _ in pairs], [rate for _, rate in pairs]

    def _skip(self, what: str, loss: Tensor, snapshot: Snapshot) -> Tensor:
        skip(what, self, snapshot, "check the data and the initial weights", stacklevel=5)
        return loss

    # Groups and state.

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group.

        Raises:
            ValueError: the group does not fit, as at construction; it is not added.
        """
        super().add_param_group(param_group)
        try:
            check_parameters(self.param_groups, self.model)
        except ValueError:
            self.param_groups.pop()
            raise

    def _own_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("damping", "radius", "steps", "skipped")}

    def state_dict(self) -> dict[str, Any]:
        """torch's state, and under "second_order" damping, radius, counters and the like."""
        return {**super().state_dict(), "second_order": self._own_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned.

        Raises:
            ValueError: the state dict is of another optimizer.
        """
        own = state_dict.get("second_order")
        if own is None or own.keys() != self._own_state().keys():
            raise ValueError(
                f"not a state dict of {type(self).__name__} (keys {sorted(state_dict)}): load one "
                f"that its state_dict() returned"
            )
        super().load_state_dict(state_dict)
        self._load_own_state(own)

    def _load_own_state(self, own: dict[str, Any]) -> None:
        for name, value in own.items():
            setattr(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        # As in torch, hooks are not copied; all else is, where torch copies groups and state only.
        hooks = {key for key in self.__dict__ if key.startswith("_optimizer_")}
        dropped = hooks | {"_zero_grad_profile_name", "step", "_opt_called"}
        return {k: v for k, v in self.__dict__.items() if k not in dropped}


def _scale(step: Tensor, parameters: list[Tensor], rates: list[float]) -> Tensor:
    """A flat step, each parameter's entries times its learning rate."""
    parts = step.split([p.numel() for p in parameters])
    return torch.cat([rate * part for rate, part in zip(rates, parts, strict=True)])


def _add(parameters: list[Tensor], step: Tensor) -> None:
    with torch.no_grad():
        for p, d in zip(parameters, unflatten(step, parameters), strict=True):
            p.add_(d)


def _write(parameters: list[Tensor], values: list[Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value)
