"""F3EO: any torch optimizer, trained on the loss and on the trace of the Fisher information."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.closure.loss_scale import LossScale
from f3eo.closure.problem import Closure
from f3eo.closure.unwrapped import inside
from f3eo.direction import Decoupled, Rule, is_known
from f3eo.fisher import Estimator
from f3eo.optimizer.accumulated import call_without_losses
from f3eo.optimizer.base import Base, build_base, describe, refuse_base, warn_of_unknown_metric
from f3eo.optimizer.checks import (
    check_closure,
    check_fraction,
    check_generator,
    check_group,
    check_model,
    check_part,
    check_whole,
    in_range,
    refuse_lost_micro_batches,
)
from f3eo.optimizer.defaults import default_estimator, default_strength
from f3eo.optimizer.descent import descend, prepare
from f3eo.optimizer.joined import (
    MEASURED_APART,
    check_past,
    join,
    load_states,
    parts_of,
    states_of,
    tensors_held,
)
from f3eo.optimizer.measuring import Measuring
from f3eo.optimizer.nonfinite import check_policy
from f3eo.optimizer.parameters import all_of
from f3eo.optimizer.past import Data, Past
from f3eo.optimizer.state import blank_state, load_parts, part_counters, wants_blank_state
from f3eo.optimizer.step_record import step_record
from f3eo.processes import digest
from f3eo.strength import Strength


class F3EO(Measuring):
    """Descends the loss L and the Fisher trace at once: θ ← base(θ, ∇L + λ h⊥).

    One step, with the defaults, for a batch of B samples with losses ℓ_i of outputs f_i:

    1. evaluate the closure: ℓ_i(θ) and L = (1/B) Σ ℓ_i;
    2. per-sample gradients: g = ∇L, and with D the root mean square of each row of weights the
       norms ‖D ∇ℓ_i‖ and the trace Tr(D F D) = (1/B) Σ ‖D ∇ℓ_i‖²;
    3. second pass: h = ∇ (1/B) Σ ‖D ∇ℓ_i‖ with D and ∂ℓ_i/∂f_i held, from ∇ℓ_i at θ and at
       θ + s_i D² ∇ℓ_i;
    4. combine: d = h − (⟨h, g⟩/⟨g, g⟩) g, λ = min(s, 0.3 ‖g‖/‖d‖) with
       s = min(1, (√Tr(D F D)/L)⁴), u = g + λ d;
    5. base step: θ ← base(θ, u).

    Steps 2 and 3 run at every fifth step, on a quarter of the batch, and more rarely while s
    vanishes (`Sensitivity`); λ is five times as large then, and the steps between are those of the
    base. `f3eo.fisher.estimand` states quantities, factors and signs. A strength of 0 is the base
    optimizer bit for bit. A step leaves alone what it has not measured: parameters that are frozen,
    or that the loss does not use, have no .grad then.

    Counted in passes a step costs 1.05 plain gradients (`gradient_equivalents`), less where it
    rests, and 2, as SAM does, with `fraction=1, every=1`. `f3eo cost` measures the time
    (docs/performance.md).

    Args:
        model: a module, or parameters or parameter groups, as for any torch optimizer, with names
            or without. With a module, buffers are protected and messages have names. A group with
            `"structure": False` is trained on the loss alone: it takes no part in Tr F, h or the
            projection.
        base: an optimizer class (or another callable that makes one from parameters and `options`),
            or a built instance. Groups are shared with it, state is not. Methods of its own are
            reached by `optimizer.base`: a schedule-free one wants `optimizer.base.train()` before
            training and `optimizer.base.eval()` before evaluation.
        estimator: how g, the trace and h are measured; default
            `PerSample(metric=ByRow(), hold_residuals=True)`.
        rule: gives d from g and h; default `Decoupled()`.
        strength: gives λ; default `Sensitivity()` where the estimator's metric is in the units of
            the parameters, so that λ has none (`Sensitivity(limit=1.0)` where the metric of the
            base is unknown), and otherwise `Fitted(0.04)`, a distance like SAM's ρ in those units.
        fraction: part of each batch, drawn at random, on which h is measured; in (0, 1]. Unbiased.
            Default ¼, and the whole batch where it cannot be split: the closure is not given it,
            batch statistics or the closure itself couple its samples, or the estimator is no mean
            over samples. A step that measures costs 3 + 3·fraction forward passes.
        every: steps from one measurement of h to the next, more while the strength rests; the
            structure term joins the measured ones alone, this many times as strong. Default 5.
        chunk: largest number of samples that go through the model at once; default no bound.
        max_norm: g is scaled down to this norm and the structure term by the same factor; default
            no bound. (`clip_grad_norm_` does so between `accumulate` and `step`.)
        past: a part, or several, that add to every step what earlier tasks say
            (`f3eo.continual`), such as samples of theirs; default none. They join once a step.
        on_nonfinite: what a non-finite loss, gradient or structure gradient does: "skip" leaves
            parameters, state and buffers untouched, counts (`skipped`) and warns at the first, the
            10th, the 100th and so on; "raise" raises FloatingPointError.
        loss_scale: S, the factor on the losses in backward passes through float16; default
            `LossScale()`, and 1 where nothing is float16. Also a number, or a GradScaler.
        generator: source of the random parts, signs and labels; default torch's global one.
        processes: group of torch.distributed whose processes make every step together, each with
            a batch of its own; default all of them. See `f3eo.processes.AllReduce`.
        options: passed to `base` if it is a class.

    Raises:
        TypeError, ValueError: arguments that do not fit; the message names the cure.

    Source: f3eo-theory, "解耦策略"; Zhao et al. 2022 (2202.03599) for gradient norms.
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
        past: Past | Sequence[Past] = (),
        on_nonfinite: str = "skip",
        loss_scale: Any = None,
        generator: torch.Generator | None = None,
        processes: Any = None,
        **options: Any,
    ) -> None:
        for kind, part in ((Estimator, estimator), (Rule, rule), (Strength, strength)):
            check_part(kind, part)
        self.estimator = estimator if estimator is not None else default_estimator()
        self.rule = rule if rule is not None else Decoupled()
        self.fraction = None if fraction is None else in_range("fraction", fraction, 0.0, 1.0)
        self.every = in_range("every", every, 0, None, integer=True)
        self.chunk = None if chunk is None else in_range("chunk", chunk, 0, None, integer=True)
        self.max_norm = None if max_norm is None else in_range("max_norm", max_norm, 0.0, None)
        self.on_nonfinite = check_policy(on_nonfinite)
        self.loss_scale = LossScale.of(loss_scale)
        check_generator(generator)
        check_fraction(self.fraction, self.estimator)
        module = inside(model) if isinstance(model, nn.Module) else None
        check_model(module, sharded=self.takes_shards)
        self.past = check_past(past, self.estimator)
        built = build_base(base, model, options)
        self.strength = (
            strength if strength is not None else default_strength(self.estimator, built)
        )
        own = module, generator, self.strength, check_group(processes, sharded=self.takes_shards)
        super().__init__(built, *own)
        if not is_known(self.base) and not self.rule.replaces_gradient and self.strength.value:
            warn_of_unknown_metric(self.base, stacklevel=2)

    @torch.no_grad()
    def step(self, closure: Closure | None = None, *batch: Any) -> Tensor:  # pyright: ignore
        """Measure a batch, combine its gradients, and let the base optimizer step.

        Args:
            closure: called with `batch`; runs the forward pass once and returns per-sample losses
                (dimension 0 counts the samples, further ones are averaged), `Weighted(losses,
                weights)` or a likelihood. It does not call `backward`. Without one, or with one
                that returns None, as wrappers of optimizers pass it, the step uses what
                `accumulate` gathered.
            batch: tensors, or nestings of them, with the samples in dimension 0; see
                `f3eo.closure.batch` for what else holds samples.

        Returns:
            the mean loss, detached.

        Raises:
            RuntimeError: nothing accumulated and no closure, or both; other parameters than those
                that were accumulated for; an error on another process; a closure while Accelerate
                accumulates.
            TypeError: a base that cannot step from gradients alone.
            FloatingPointError: something was not finite and `on_nonfinite="raise"`.
        """
        groups = self.param_groups
        if closure is None and self._accumulated is None and wants_blank_state(self):
            self._blank = blank_state(self.base)
            return torch.zeros(())
        trained = self._groups(groups)
        scheduled = self.strength.scheduled(self.steps)
        # 1 to 3: losses, per-sample gradients, second pass.
        with self._shared(trained):
            check_whole(groups, sharded=self.takes_shards)
            if closure is not None and self._accumulated is None:
                check_closure(closure)
                refuse_lost_micro_batches()
                measured, batches = self._measure(closure, batch, trained, scheduled > 0), (batch,)
                self._groups(groups).check_same(trained)
            else:
                if closure is not None:
                    call_without_losses(self._problem(closure, batch, trained))
                measured, closure, batches = self._gathered(trained, stacklevel=4)
        measured = self._reduced(measured)
        # 4: combine g and h, of all that joins the batch.
        with self._shared(trained):
            present = self._present(closure, batches, measured) if self.past else None
            measured = measured if present is None else join(self.past, present, measured)
        found = prepare(measured)
        if what := found.not_finite():
            self._skip(what, found.loss, measured)
            return measured.loss
        gradients = measured.gradients
        self.trace = gradients.trace if gradients.trace is not None else self.trace
        self._error = gradients.error if found.structure is not None else self._error
        observed = measured.observed(self.steps, found.loss, self.trace, self.estimator)
        before = self.strength.counters()
        constant = self.strength.at(observed)
        # 5: the base steps, along u or, with a metric of its own, along g and then λ d.
        clip = found.clipping(self.max_norm)
        try:
            parts = self.rule, self.strength
            update, found = descend(
                self.base, found, *parts, constant, clip=clip, times=self._interval
            )
        except Exception as error:
            measured.snapshot.restore()
            self.strength.load(before)
            refuse_base(self.base, error, first=self.steps == 0)
            raise
        self._blank = None
        self.steps += 1
        if self.loss_scale.factor != 1:
            self.loss_scale.pass_on()
        if present is not None:
            for part in parts_of(self.past):
                part.after(present)
        if self._observers:
            self._tell(step_record(self.steps - 1, measured, found, update))
        return measured.loss

    def consolidate(self, closure: Closure | None = None, data: Data | None = None) -> None:
        """A task ends here: every part of `past` keeps what it needs of it.

        Args:
            closure: as in `step`; called with batches of the data, in the mode that the model is
                in. Default none, for parts that measure nothing.
            data: batches of the task, each a tuple of the closure's arguments, such as a
                DataLoader; it is gone through once by every part that measures. The same on all of
                several processes.

        Raises:
            ValueError: a part needs closure and data, or had no step to learn from.
            RuntimeError: a part measured other data on another process.
        """
        model = self.model if self.model is not None else all_of(self.param_groups)
        trained = self._groups(self.param_groups)
        with self._shared(trained):
            for part in parts_of(self.past):
                part.consolidate(model, closure, data)
        if not self._reduction.alone:
            number = digest(tensors_held(self.past, all_of(self.param_groups)))
            self._reduction.agree(number, self._place(trained), MEASURED_APART)

    def _counters(self) -> dict[str, Any]:
        parts = part_counters(self.estimator, self.strength)
        return {**super()._counters(), **parts, **self.loss_scale.counters()}

    def _load_counters(self, counters: dict[str, Any]) -> None:
        super()._load_counters(counters)
        self._reduction.restart()
        load_parts(self.estimator, self.strength, counters)
        self.loss_scale.load(counters)
        load_states(self.past, counters.get("past", ()), all_of(self.param_groups))

    def _add_parts(self, state: dict[str, Any]) -> None:
        super()._add_parts(state)
        if self.past:
            state["f3eo"]["past"] = states_of(self.past, all_of(self.param_groups))

    def __repr__(self) -> str:
        never = ("loss_scale",) if self.loss_scale.is_default else ()
        return describe(self, ("estimator", "rule", "strength"), ("fraction", "every"), never)
