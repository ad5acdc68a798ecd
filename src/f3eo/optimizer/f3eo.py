"""F3EO: any torch optimizer, trained on the loss and on the trace of the Fisher information."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.closure.coupling import Coupling
from f3eo.closure.problem import Closure, Problem
from f3eo.closure.snapshot import Snapshot
from f3eo.direction import Decoupled, Rule, is_known
from f3eo.fisher import Estimator, Gradients, PerSample
from f3eo.fisher.parts import USUAL_FRACTION, Measurement
from f3eo.optimizer.accumulated import Settled, handed_out
from f3eo.optimizer.base import CURE, Base, built, described
from f3eo.optimizer.checks import (
    check_alone,
    check_generator,
    check_model,
    check_part,
    check_policy,
    in_range,
    tell_skipped,
)
from f3eo.optimizer.descent import Descent
from f3eo.optimizer.notices import Notices
from f3eo.optimizer.parameters import Trained, trained
from f3eo.optimizer.state import asked_for_blank, blank
from f3eo.optimizer.wrapper import Wrapper
from f3eo.strength import Fitted, Strength


class F3EO(Wrapper):
    """Descends L and Tr F at once: θ ← θ − base(∇L + λ h⊥), h⊥ the part of h that leaves L alone.

    h is (1/p)∇ E‖∇ℓ_i‖^p, p the estimator's power: by default 1, ∇ E‖∇ℓ_i‖; at 2 it is ½∇Tr F.

    One step with the defaults: per-sample losses from the closure and ∇L; at every fifth step the
    exact Tr F and h on a quarter of the batch; h projected off ∇L, times 0.04 e^(−L), but no longer
    than ∇L; base optimizer stepped. A strength of zero is the base optimizer bit for bit.

    The price, counted in passes, is 1.05 plain gradients a step (`gradient_equivalents`), and 2
    with `fraction=1, every=1`, as SAM; in time, `f3eo cost` measures it (docs/performance.md).

    Args:
        model: a module, or parameters or parameter groups, as for any torch optimizer, with names
            or without. With a module buffers are protected and messages have names. A group with
            `"structure": False` is trained on the loss alone: it takes no part in Tr F, h or the
            projection.
        base: an optimizer class (or another callable that makes one from parameters and `options`),
            or a built instance. Groups are shared with it, state is not. Methods of its own are
            reached by `optimizer.base`: a schedule-free one wants `optimizer.base.train()` before
            training and `optimizer.base.eval()` before evaluation.
        estimator: how Tr F is measured, and the gradient h of it or of another mean of the same
            norms; default `PerSample()`, with h = ∇ E‖∇ℓ_i‖.
        rule: what is taken from h; default `Decoupled()`.
        strength: how much of it; default `Fitted(0.04)`, a distance like SAM's ρ. Losses in other
            units than nats, such as squared errors, want `Cap(0.04)`.
        fraction: part of each batch, drawn at random, on which h is measured; in (0, 1]. Unbiased;
            a step that measures costs 3 + 3·fraction forward passes, with
            `PerSample(DoubleBackward())` 3 + 4·fraction. Default ¼, and the whole batch where it
            cannot be split: the closure is not given it, batch statistics or the closure itself tie
            it together (`f3eo.closure.coupling`), or the estimator is no mean over samples.
        every: steps from one measurement of h to the next, whose direction is used in between;
            default 5.
        chunk: largest number of samples that go through the model at once; default no bound.
        max_norm: ∇L is scaled down to this norm and the structure term by the same factor; default
            no bound. (`clip_grad_norm_` does so between `accumulate` and `step`.)
        on_nonfinite: what a non-finite loss, gradient or structure gradient does: "skip" leaves
            parameters, state and buffers untouched, counts (`skipped`) and warns at the first, the
            10th, the 100th and so on; "raise" raises FloatingPointError.
        generator: source of the random parts, signs and labels; default torch's global one.
        options: passed to `base` if it is a class.

    A step leaves alone what it has not measured: parameters that are frozen, or that the loss does
    not use, have no .grad then.

    Raises:
        TypeError, ValueError: arguments that do not fit; the message names the cure.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[Any],
        base: Base,
        *,
        estimator: Estimator | None = None,
        rule: Rule | None = None,
        strength: Strength | None = None,
        fraction: float | None = None,
        every: int = 5,
        chunk: int | None = None,
        max_norm: float | None = None,
        on_nonfinite: str = "skip",
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        check_part(Estimator, estimator)
        check_part(Rule, rule)
        check_part(Strength, strength)
        self.estimator = estimator if estimator is not None else PerSample()
        self.rule = rule if rule is not None else Decoupled()
        self.strength = strength if strength is not None else Fitted(0.04)
        self.fraction = None if fraction is None else in_range("fraction", fraction, 0.0, 1.0)
        self.every = in_range("every", every, 0, None, integer=True)
        self.chunk = None if chunk is None else in_range("chunk", chunk, 0, None, integer=True)
        self.max_norm = None if max_norm is None else in_range("max_norm", max_norm, 0.0, None)
        self.on_nonfinite = check_policy(on_nonfinite)
        check_generator(generator)
        if self.fraction is not None and self.fraction < 1 and not self.estimator.additive:
            raise ValueError(
                f"fraction={fraction} needs an estimator that is a mean over samples, received "
                f"{type(self.estimator).__name__}: use PerSample(), Sign() or ModelSampled()"
            )
        module = model if isinstance(model, nn.Module) else None
        check_model(module)
        super().__init__(built(base, model, options), module, generator)
        self._told = False
        self._coupling = Coupling()
        self._notices = Notices()
        self._error: Tensor | None = None
        if not is_known(self.base) and not self.rule.replaces_gradient and self.strength.value:
            warnings.warn(
                f"F3EO knows no metric of {type(self.base).__name__}: the structure term is "
                f"projected in the Euclidean metric and joins the gradient, so the base may turn a "
                f"part of it back into the loss; see f3eo.extend.register_metric",
                stacklevel=2,
            )

    # What a step costs.

    @property
    def gradient_equivalents(self) -> float:
        """Cost of one step in plain gradients, counted in forward passes (3 a gradient)."""
        if self.strength.value == 0:
            return 1.0
        usual = USUAL_FRACTION if self.estimator.additive else 1.0
        fraction = usual if self.fraction is None else self.fraction
        fresh = fraction * self.estimator.forwards + (1 - fraction) * 3
        return (fresh + 3 * (self.every - 1)) / self.every / 3

    @property
    def structure_error(self) -> float | None:
        """Expected relative error of the h last measured, but for kinks; None if not known."""
        return None if self._error is None else float(self._error)

    # One step.

    def step(self, closure: Closure | None = None, *batch: Any) -> Tensor:  # pyright: ignore
        """Differentiate, combine, and let the base optimizer step.

        Args:
            closure: called with `batch`; runs the forward pass once and returns per-sample losses
                (dimension 0 counts the samples, further ones are averaged), `Weighted(losses,
                weights)` or a likelihood. It does not call `backward`. Without one, or with one
                that returns None, as wrappers of optimizers make it, what `accumulate` gathered
                is used.
            batch: tensors, or nestings of them, with the samples in dimension 0; see
                `f3eo.closure.batch` for what else holds samples.

        Returns:
            The mean loss, detached.

        Raises:
            RuntimeError: nothing accumulated and no closure, or both; other parameters than those
                that were accumulated for; one of several processes.
            TypeError: a base that cannot step from gradients alone.
            FloatingPointError: something was not finite and `on_nonfinite="raise"`.
        """
        if closure is None and self._pending is None and asked_for_blank(self):
            self._blank = blank(self.base)
            return torch.zeros(())
        own = trained(self.param_groups)
        check_alone(self.param_groups)
        if closure is not None and self._pending is not None:
            self._call_hollow(closure, batch, own)
            closure = None
        if closure is not None:
            gradients, snapshot = self._measured(closure, batch, own)
            own.check_same(trained(self.param_groups), snapshot)
            self._apply(gradients, snapshot, own, 1.0)
            return gradients.loss
        before, self._pending = self._settled(own, stacklevel=4), None
        if before is None:
            raise RuntimeError(
                "step() without a closure needs accumulate(closure, *batch) before it"
            )
        self._apply(before.gradients, before.snapshot, own, before.factor)
        return before.gradients.loss

    def accumulate(self, closure: Closure, *batch: Any) -> Tensor:
        """Add one micro-batch's ∇L and structure gradient to the coming `step()`.

        With estimators that are means over samples (all but `MiniBatch`), accumulated micro-batches
        equal the one big batch; random signs are drawn per micro-batch, so there they do in
        expectation.

        Afterwards .grad holds ∇L of all micro-batches, and `step()` takes it as it then is: what
        `clip_grad_norm_` has scaled counts for the structure gradient, too.

        Args:
            closure, batch: see `step`.

        Returns:
            The micro-batch's mean loss, detached.

        Raises:
            TypeError: a closure that cannot be called.
            ValueError: a second micro-batch with an estimator that is no mean over samples.
            RuntimeError: as `step`.
        """
        own = trained(self.param_groups)
        check_alone(self.param_groups)
        before = self._settled(own, stacklevel=3)
        if before is not None:
            self._measurement().refuse_parts("a second micro-batch", self.model)
        pending = self._pending if before is not None else None
        try:
            gradients, snapshot = self._measured(closure, batch, own, further=before is not None)
        finally:
            self._pending = pending  # a zero_grad() in the closure is not meant for these
        loss = gradients.loss
        if before is not None:
            gradients, snapshot = before.applied().merged(gradients), before.snapshot
        self._pending = handed_out(gradients, snapshot, own)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients, and what `accumulate` gathered."""
        self._pending = None
        super().zero_grad(set_to_none)

    def _call_hollow(self, closure: Closure, batch: tuple[Any, ...], own: Trained) -> None:
        """Call the closure that a wrapper (Lightning's) puts into a `step()`: it runs hooks.

        Raises:
            RuntimeError: it returns something, so what was accumulated is not meant.
        """
        snapshot = Snapshot(self._problem(closure, batch, own))
        if closure(*batch) is not None:
            snapshot.restore()
            raise RuntimeError(
                "step(closure) after accumulate(): call step() without arguments to use what "
                "was accumulated, or zero_grad() to drop it"
            )

    # What a step measures.

    def _measured(
        self, closure: Closure, batch: tuple[Any, ...], own: Trained, *, further: bool = False
    ) -> tuple[Gradients, Snapshot]:
        if not callable(closure):
            raise TypeError(
                f"the closure must be a function that returns per-sample losses, received "
                f"{closure!r}; the batch follows it: step(closure, *batch)"
            )
        problem = self._problem(closure, batch, own)
        if further:
            self._measurement().refuse_coupled("a second micro-batch", problem)
        snapshot = Snapshot(problem)
        try:
            with torch.enable_grad():
                gradients = self._measurement()(problem, structure=self._measures_structure(own))
        except BaseException:
            snapshot.restore()
            raise
        return gradients, snapshot

    def _problem(
        self, closure: Closure, batch: tuple[Any, ...], own: Trained | None = None
    ) -> Problem:
        own = own if own is not None else trained(self.param_groups)
        return Problem(
            closure,
            batch,
            own.parameters,
            own.inside,
            self.model,
            self.generator,
            names=own.names,
            on_output=lambda output: self._notices(output, self.strength),
        )

    def _settled(self, own: Trained, stacklevel: int) -> Settled | None:
        """What was accumulated, as .grad has it by now; None if nothing was."""
        pending = self._pending
        if pending is None:
            return None
        own.check_same(pending.trained, pending.snapshot)
        with torch.no_grad():
            found = pending.settled()
        if found is not None and not found.common and not self._told:
            self._told = True
            warnings.warn(
                "what was done to .grad after accumulate() is no common factor: the structure "
                "gradient is scaled as the norm of all .grad was; to clip use max_norm, or "
                "torch.nn.utils.clip_grad_norm_",
                stacklevel=stacklevel,
            )
        return found

    def _measurement(self) -> Measurement:
        return Measurement(self.estimator, self.fraction, self.chunk, self._coupling)

    def _measures_structure(self, own: Trained) -> bool:
        if self.strength.at(self.steps) == 0 or not own.chosen:
            return False
        return self.steps % self.every == 0 or any(p not in self._stored for p in own.chosen)

    def _counters(self) -> dict[str, Any]:
        return {**super()._counters(), **self.estimator.counters()}

    def _load_counters(self, counters: dict[str, Any]) -> None:
        super()._load_counters(counters)
        self.estimator.forget(counters)

    @property
    def _directions(self) -> bool:
        return self.every > 1 and self.strength.value > 0

    # What was measured becomes an update.

    def _apply(self, gradients: Gradients, snapshot: Snapshot, own: Trained, factor: float) -> None:
        with torch.no_grad():
            stored = self._stored if self.strength.at(self.steps) else None
            descent = Descent(own, gradients, stored, factor)
            if found := descent.not_finite():
                self._skip(found, snapshot)
                return
            clip = 1.0
            if self.max_norm is not None:
                clip = min(1.0, self.max_norm / (descent.squared**0.5 + 1e-6))
            # Where everything is maximized, what the closure returned is a log-likelihood.
            upward = all(group.get("maximize") for group in self.param_groups)
            self.trace = gradients.trace if gradients.trace is not None else self.trace
            self._error = gradients.error if gradients.structure is not None else self._error
            value = self.strength.at(self.steps, -descent.mean if upward else descent.mean)
            value *= self._unit()
            keep = self.every > 1
            try:
                kept = descent.step(
                    self.base, self.rule, self.strength, value, clip=clip, keep=keep
                )
            except Exception as error:
                self._refuse(error, snapshot)
                raise
            if descent.fresh or self.steps % self.every == 0:
                # No direction outlives the next measurement, whoever took part in that.
                self._stored.clear()
            if kept is not None:
                self._stored.update(zip(own.chosen, kept, strict=True))
        self._blank = None
        self.steps += 1

    def _unit(self) -> float:
        """What turns h into the gradient of a mean norm, where the strength is a distance.

        ∇(E‖∇ℓ_i‖^p)^(1/p) = (E‖∇ℓ_i‖^p)^(1/p − 1) h; between p = 1 and 2 the mean is that of p = 2.
        """
        power = self.estimator.power
        if power == 1 or not self.strength.distance or self.trace is None:
            return 1.0
        trace = float(self.trace)
        return trace ** ((1 - power) / 2) if trace > 0 else 0.0

    def _refuse(self, error: Exception, snapshot: Snapshot) -> None:
        """Say whose error it was, if the base has never made a step here.

        Raises:
            TypeError: with the cure.
        """
        snapshot.restore()
        if self.steps == 0 and not isinstance(error, torch.OutOfMemoryError):
            name = type(self.base).__name__
            raise TypeError(
                f"{name} failed at its first step from gradients alone: {error!r}; where it needs "
                f"a closure, hooks or the graph of the gradient, it cannot be a base: {CURE}"
            ) from error

    def _skip(self, what: str, snapshot: Snapshot) -> None:
        if self.on_nonfinite == "raise":
            snapshot.restore()
            raise FloatingPointError(
                f"{what} is not finite: lower the learning rate or the strength, check the data "
                f'or use on_nonfinite="skip"'
            )
        snapshot.restore_buffers()
        self.skipped += 1
        tell_skipped(what, self, stacklevel=5)

    def __repr__(self) -> str:
        return described(self, ("estimator", "rule", "strength"), ("fraction", "every"))
