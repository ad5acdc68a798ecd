"""F3EO: any torch optimizer, trained on the loss and on the trace of the Fisher information."""

import inspect
import warnings
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from f3eo.coupling import Coupling
from f3eo.evaluation import Closure, Problem, World
from f3eo.fisher import Estimator, Gradients, PerSample
from f3eo.measurement import USUAL_FRACTION, Measurement
from f3eo.notices import Notices
from f3eo.tensors import fetched, filled, inners
from f3eo.updates import (
    Decoupled,
    Fitted,
    Products,
    Rule,
    Update,
    Weight,
    is_diagonal,
    is_known,
    metric,
    products,
)
from f3eo.validation import check_model, check_parameters, in_range

Base = type[Optimizer] | Callable[..., Optimizer] | Optimizer


class F3EO(Optimizer):
    """Descends L and Tr F at once: θ ← θ − base(∇L + λ h⊥), h⊥ the part of h that leaves L alone.

    h is ½∇Tr F = ½∇ E‖∇ℓ_i‖², or, as the defaults have it, ∇ E‖∇ℓ_i‖.

    One step with the defaults: per-sample losses from the closure and ∇L; at every fifth step the
    exact Tr F and h on a quarter of the batch; h projected off ∇L, times 0.04 e^(−L), but no longer
    than ∇L; base optimizer stepped. A weight of zero is the base optimizer bit for bit.

    The price, counted in passes, is 1.05 plain gradients a step (`gradient_equivalents`), and 2
    with `fraction=1, every=1`, as SAM; what it is in time, `f3eo cost` measures (docs/performance.md).

    Args:
        model: a module, or parameters or parameter groups, as for any torch optimizer. With a
            module buffers are protected and messages have names. A group with `"structure": False`
            is trained on the loss alone: it takes no part in Tr F, h or the projection.
        base: an optimizer class (or another callable that makes one from parameters and `options`),
            or a built instance. Groups are shared with it, state is not. Methods of its own are
            reached by `optimizer.base`: a schedule-free one wants `optimizer.base.train()` before
            training and `optimizer.base.eval()` before evaluation.
        estimator: how Tr F is measured, and the gradient h of it or of another mean of the same
            norms; default `PerSample()`, with h = ∇ E‖∇ℓ_i‖.
        rule: what is taken from h; default `Decoupled()`.
        weight: how much of it; default `Fitted(0.04)`, a distance like SAM's ρ. Losses in other
            units than nats, such as squared errors, want `Cap(0.04)`.
        fraction: part of each batch, drawn at random, on which h is measured; in (0, 1]. Unbiased;
            a step that measures costs 3 + 3·fraction forward passes, with
            `PerSample(DoubleBackward())` 3 + 4·fraction. Default ¼, and the whole batch where it
            cannot be split: the closure is not given it, batch statistics or the closure itself tie
            it together, or the estimator is no mean over samples. Whether a closure does is looked
            at where its uses are a power of sixteen, by forward passes without gradients through
            the batch and through a part: losses of a part that are other ones than in the whole are
            refused where a `fraction`, a `chunk` or `accumulate` was asked for.
        every: steps from one measurement of h to the next, whose direction is used in between;
            default 5.
        chunk: largest number of samples that go through the model at once; default no bound.
        max_norm: ∇L is scaled down to this norm and the structure term by the same factor; default
            no bound. (`clip_grad_norm_` has no place to act.)
        on_nonfinite: what a non-finite loss, gradient or structure gradient does: "skip" leaves
            parameters, state and buffers untouched, counts (`skipped`) and warns once; "raise"
            raises FloatingPointError.
        generator: source of the random parts, signs and labels; default torch's global one.
        options: passed to `base` if it is a class.

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
        weight: Weight | None = None,
        fraction: float | None = None,
        every: int = 5,
        chunk: int | None = None,
        max_norm: float | None = None,
        on_nonfinite: str = "skip",
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        self.model = model if isinstance(model, nn.Module) else None
        for part, kind in ((estimator, Estimator), (rule, Rule), (weight, Weight)):
            if part is not None and not isinstance(part, kind):
                raise TypeError(
                    f"{kind.__name__.lower()} must be an instance of f3eo.{kind.__name__}, "
                    f"received {part!r}; pass an object: PerSample(), Decoupled(), Fitted(0.04)"
                )
        self.estimator = estimator if estimator is not None else PerSample()
        self.rule = rule if rule is not None else Decoupled()
        self.weight = weight if weight is not None else Fitted(0.04)
        self.fraction = None if fraction is None else in_range("fraction", fraction, 0.0, 1.0)
        self.every = in_range("every", every, 0, None, integer=True)
        self.chunk = None if chunk is None else in_range("chunk", chunk, 0, None, integer=True)
        self.max_norm = None if max_norm is None else in_range("max_norm", max_norm, 0.0, None)
        if on_nonfinite not in ("skip", "raise"):
            raise ValueError(f'on_nonfinite must be "skip" or "raise", received {on_nonfinite!r}')
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator or None, received {generator!r}; a seed "
                f"becomes one by torch.Generator().manual_seed(seed)"
            )
        if self.fraction is not None and self.fraction < 1 and not self.estimator.additive:
            raise ValueError(
                f"fraction={fraction} needs an estimator that is a mean over samples, received "
                f"{type(self.estimator).__name__}: use PerSample(), Sign() or ModelSampled()"
            )
        self.on_nonfinite = on_nonfinite
        self.generator = generator
        check_model(self.model, self.estimator)

        self.base = _built(base, model, options)
        super().__init__(self.base.param_groups, {**self.base.defaults, "structure": True})
        self.base.register_load_state_dict_pre_hook(_keep_structure)
        check_parameters(self.param_groups, self.model)
        if not is_known(self.base) and not self.rule.replaces_gradient and self.weight.value:
            warnings.warn(
                f"F3EO knows no metric of {type(self.base).__name__}: the structure term is "
                f"projected in the Euclidean metric and joins the gradient, so the base may turn a "
                f"part of it back into the loss; see f3eo.register_metric",
                stacklevel=2,
            )
        self.steps = 0
        """Steps taken, skipped ones not counted."""
        self.skipped = 0
        """Steps skipped because something was not finite."""
        self.trace: Tensor | None = None
        """The last estimate of Tr F, detached; None before the first."""
        self._pending: tuple[Gradients, World] | None = None
        self._coupling = Coupling()
        self._notices = Notices()

    # What a step costs.

    @property
    def gradient_equivalents(self) -> float:
        """Cost of one step in plain gradients, counted in forward passes (3 a gradient)."""
        if self.weight.value == 0:
            return 1.0
        usual = USUAL_FRACTION if self.estimator.additive else 1.0
        fraction = usual if self.fraction is None else self.fraction
        fresh = fraction * self.estimator.forwards + (1 - fraction) * 3
        return (fresh + 3 * (self.every - 1)) / self.every / 3

    # One step.

    def step(self, closure: Closure | None = None, *batch: Any) -> Tensor:  # pyright: ignore
        """Differentiate, combine, and let the base optimizer step.

        Args:
            closure: called with `batch`; runs the forward pass once and returns per-sample losses
                (dimension 0 counts the samples, further ones are averaged), `Weighted(losses,
                weights)` or a likelihood. It does not call `backward`. Without one, what
                `accumulate` gathered is used.
            batch: tensors, or nestings of them, with the samples in dimension 0; `f3eo.batch` says
                what else holds samples.

        Returns:
            The mean loss, detached.

        Raises:
            RuntimeError: nothing accumulated and no closure, or both; other parameters than those
                that were accumulated for.
            FloatingPointError: something was not finite and `on_nonfinite="raise"`.
        """
        if closure is not None:
            if self._pending is not None:
                raise RuntimeError(
                    "step(closure) after accumulate(): call step() without arguments to use what "
                    "was accumulated, or zero_grad() to drop it"
                )
            self.accumulate(closure, *batch)
        if self._pending is None:
            raise RuntimeError(
                "step() without a closure needs accumulate(closure, *batch) before it"
            )
        (gradients, world), self._pending = self._pending, None
        self._apply(gradients, world)
        return gradients.loss

    def accumulate(self, closure: Closure, *batch: Any) -> Tensor:
        """Add one micro-batch's ∇L and structure gradient to the coming `step()`.

        With estimators that are means over samples (all but `Batch`), accumulated micro-batches
        equal the one big batch; random signs are drawn per micro-batch, so there they do in
        expectation.

        Args:
            closure, batch: see `step`.

        Returns:
            The micro-batch's mean loss, detached.

        Raises:
            TypeError: a closure that cannot be called.
            ValueError: a second micro-batch with an estimator that is no mean over samples.
        """
        if not callable(closure):
            raise TypeError(
                f"the closure must be a function that returns per-sample losses, received "
                f"{closure!r}; the batch follows it: step(closure, *batch)"
            )
        if self._pending is not None:
            self._measurement().refuse_parts("a second micro-batch", self.model)
        problem = self._problem(closure, batch)
        if self._pending is not None:
            self._measurement().refuse_coupled("a second micro-batch", problem)
        world = World(problem)
        try:
            with torch.enable_grad():
                structure = self._measures_structure(problem)
                gradients = self._measurement()(problem, structure=structure)
        except BaseException:
            world.restore()
            raise
        loss = gradients.loss
        if self._pending is not None:
            before, world = self._pending
            _check_same(world, problem)
            gradients = before.merged(gradients)
        self._pending = (gradients, world)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients, and what `accumulate` gathered."""
        self._pending = None
        super().zero_grad(set_to_none)

    def _problem(self, closure: Closure, batch: tuple[Any, ...]) -> Problem:
        trained = [
            (p, group["structure"])
            for group in self.param_groups
            for p in group["params"]
            if p.requires_grad
        ]
        parameters, structured = [p for p, _ in trained], [bool(s) for _, s in trained]
        return Problem(
            closure,
            batch,
            parameters,
            structured,
            self.model,
            self.generator,
            watch=lambda output: self._notices(output, self.weight),
        )

    def _measurement(self) -> Measurement:
        return Measurement(self.estimator, self.fraction, self.chunk, self._coupling)

    def _measures_structure(self, problem: Problem) -> bool:
        if self.weight.at(self.steps) == 0 or not any(problem.structured):
            return False
        stored = all(
            "structure" in self.state.get(p, {})
            for p, s in zip(problem.parameters, problem.structured, strict=True)
            if s
        )
        return self.steps % self.every == 0 or not stored

    # What was measured becomes an update.

    def _apply(self, gradients: Gradients, world: World) -> None:
        problem = self._problem(lambda: None, ())
        _check_same(world, problem)
        parameters, inside = problem.parameters, problem.structured
        chosen = [p for p, s in zip(parameters, inside, strict=True) if s]
        with torch.no_grad():
            uphill = self._uphill(gradients, parameters)
            others = [g for g, s in zip(uphill, inside, strict=True) if g is not None and not s]
            own = [g for g, s in zip(uphill, inside, strict=True) if s]
            loss = filled(own, chosen)
            structure = gradients.structure
            if structure is None and self.weight.at(self.steps) and chosen:
                # A parameter that the loss does not use in this step stays where it is.
                pairs = zip(chosen, own, strict=True)
                stored = [None if g is None else self.state[p]["structure"] for p, g in pairs]
                structure = filled(stored, chosen)

            outside = fetched([gradients.loss, *inners(others, others)])
            measured = products(loss, structure, None)
            if found := _not_finite(outside[0], sum(outside[1:]), measured):
                self._skip(found, world)
                return
            clip = self._clip(sum(outside[1:]) + sum(p.gg for p in measured))
            # Where everything is maximized, what the closure returned is a log-likelihood.
            upward = all(group.get("maximize") for group in self.param_groups)
            self.trace = gradients.trace if gradients.trace is not None else self.trace
            value = self.weight.at(self.steps, -outside[0] if upward else outside[0])
            value *= self._unit()
            self._update(parameters, uphill, chosen, loss, structure, measured, clip, value)
        self.steps += 1

    def _unit(self) -> float:
        """What turns h into the gradient of a mean norm, where the weight is a distance.

        ∇(E‖∇ℓ_i‖^p)^(1/p) = (E‖∇ℓ_i‖^p)^(1/p − 1) h; between p = 1 and 2 the mean is that of p = 2.
        """
        power = self.estimator.power
        if power == 1 or not self.weight.distance or self.trace is None:
            return 1.0
        trace = float(self.trace)
        return trace ** ((1 - power) / 2) if trace > 0 else 0.0

    def _update(
        self,
        parameters: list[Tensor],
        uphill: list[Tensor | None],
        chosen: list[Tensor],
        loss: list[Tensor],
        structure: list[Tensor] | None,
        measured: list[Products],
        clip: float,
        value: float,
    ) -> None:
        """Write .grad, step the base, and add what stays out of its second moment."""
        after = is_diagonal(self.base) and not self.rule.replaces_gradient
        joined: dict[int, Tensor] = {}
        if structure is not None and not after:
            update = self._combined(chosen, loss, structure, measured, value)
            total = update.term() if self.rule.replaces_gradient else update.total()
            joined = {id(p): t for p, t in zip(chosen, total, strict=True)}
        signs = self._signs()
        for p, g in zip(parameters, uphill, strict=True):
            # A parameter the loss does not use stays without a gradient, and the base off it.
            total = None if g is None else joined.get(id(p), g)
            if total is not None and clip * signs[id(p)] != 1:
                total = total * (clip * signs[id(p)])
            p.grad = total
        self.base.step()
        if structure is not None and after:
            diagonal = metric(self.base, chosen)
            measured = products(loss, structure, diagonal)
            term = self._combined(chosen, loss, structure, measured, value).term()
            rates = self._learning_rates(chosen)
            for p, t, d, rate in zip(chosen, term, diagonal or [], rates, strict=True):
                p.addcmul_(d, t, value=-rate * clip)

    def _combined(
        self,
        chosen: list[Tensor],
        loss: list[Tensor],
        structure: list[Tensor],
        measured: list[Products],
        value: float,
    ) -> Update:
        rates = self._rates(chosen)
        update = Update(loss, structure, measured, rates, self.rule, self.weight, value)
        stored = (self.state[p].get("structure") for p in chosen)
        if self.every > 1 and any(s is not h for s, h in zip(stored, structure, strict=True)):
            for p, d in zip(chosen, update.direction, strict=True):
                self.state[p]["structure"] = d
        return update

    def _learning_rates(self, chosen: list[Tensor]) -> list[float]:
        rates = {
            id(p): float(group.get("lr", 1.0))
            for group in self.param_groups
            for p in group["params"]
        }
        return [rates[id(p)] for p in chosen]

    def _rates(self, chosen: list[Tensor]) -> list[float]:
        """Learning rates in units of the largest; all 1 where they do not differ."""
        if len(self.param_groups) == 1:
            return [1.0] * len(chosen)
        rates = self._learning_rates(chosen)
        largest = max(rates, default=0.0)
        return [rate / largest if largest > 0 else 1.0 for rate in rates]

    def _uphill(self, gradients: Gradients, parameters: list[Tensor]) -> list[Tensor | None]:
        """Gradients of what is to become smaller: a group that maximizes has −∇L."""
        signs = self._signs()
        return [
            -g if g is not None and signs[id(p)] < 0 else g
            for p, g in zip(parameters, gradients.gradient, strict=True)
        ]

    def _clip(self, squared: float) -> float:
        if self.max_norm is None:
            return 1.0
        return min(1.0, self.max_norm / (squared**0.5 + 1e-6))

    def _skip(self, what: str, world: World) -> None:
        if self.on_nonfinite == "raise":
            world.restore()
            raise FloatingPointError(
                f"{what} is not finite: lower the learning rate or the weight, check the data, or "
                f'use on_nonfinite="skip"'
            )
        world.restore_buffers()
        self.skipped += 1
        if self.skipped == 1:
            warnings.warn(
                f"{what} is not finite: the step is skipped, as are all further ones of this kind "
                f"(counted in F3EO.skipped)",
                stacklevel=5,
            )

    def _signs(self) -> dict[int, int]:
        return {
            id(p): -1 if group.get("maximize") else 1
            for group in self.param_groups
            for p in group["params"]
        }

    # Groups, state, copies.

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The groups of the base optimizer, the very same."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, to the base optimizer too."""
        if "steps" not in self.__dict__:  # called by Optimizer.__init__, with groups of the base
            super().add_param_group(param_group)
            return
        if isinstance(param_group, dict):  # else the base says what is wrong
            param_group["params"] = _listed(param_group["params"])
            check_parameters([param_group], self.model)
        self.base.add_param_group(param_group)
        param_group.setdefault("structure", self.defaults["structure"])

    def state_dict(self) -> dict[str, Any]:
        """State of F3EO ("state", "param_groups", "f3eo") and of its base ("base")."""
        # The first hook on the result, so that the user's see all of it.
        parts = self.register_state_dict_post_hook(lambda _, s: self._add_parts(s), prepend=True)
        try:
            return super().state_dict()
        finally:
            parts.remove()

    def _add_parts(self, state: dict[str, Any]) -> None:
        state["base"] = self.base.state_dict()
        state["f3eo"] = {
            "steps": self.steps,
            "skipped": self.skipped,
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both parts.

        Raises:
            ValueError: a state dict of another optimizer.
        """
        # The last hook on the argument, so that it sees what the user's made of it.
        parts = self.register_load_state_dict_pre_hook(lambda _, s: self._load_parts(s))
        try:
            super().load_state_dict(state_dict)
        finally:
            parts.remove()

    def _load_parts(self, state_dict: dict[str, Any]) -> None:
        if "base" not in state_dict or "f3eo" not in state_dict:
            raise ValueError(
                f"not a state dict of F3EO (keys {sorted(state_dict)}): load one of the base "
                f"optimizer with optimizer.base.load_state_dict"
            )
        self.base.load_state_dict(state_dict["base"])
        own = state_dict["f3eo"]
        self.steps, self.skipped = own["steps"], own["skipped"]
        if self.generator is not None and own["generator"] is not None:
            self.generator.set_state(own["generator"].cpu())
        self._pending = None

    def __getstate__(self) -> dict[str, Any]:
        hooks = {key for key in self.__dict__ if key.startswith("_optimizer_")}
        # "step" is here once a scheduler has wrapped it, bound to this very object.
        dropped = hooks | {"_pending", "_zero_grad_profile_name", "step", "_opt_called"}
        return {k: v for k, v in self.__dict__.items() if k not in dropped} | {"_pending": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From a copy, where the base has lost its hooks, or with groups from a state dict."""
        groups = state.get("param_groups")
        super().__setstate__({k: v for k, v in state.items() if k != "param_groups"})
        if groups is not None:
            self.param_groups = groups
        else:
            self.base.register_load_state_dict_pre_hook(_keep_structure)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        # torch.amp.GradScaler asks for this before it steps an optimizer.
        raise RuntimeError(
            "F3EO does not work with GradScaler: a loss scale S multiplies the gradient by S and "
            "the structure gradient by S²; use bfloat16 autocast, which needs no scaling, and call "
            "optimizer.step(closure, *batch) itself"
        )


def _built(base: Base, model: nn.Module | Iterable[Any], options: dict[str, Any]) -> Optimizer:
    if isinstance(base, Optimizer):
        if options:
            raise ValueError(
                f"options {sorted(options)} belong to the base optimizer, which is already built: "
                f"set them where it is constructed, or pass its class"
            )
    elif callable(base):
        base = base(model.parameters() if isinstance(model, nn.Module) else model, **options)
    if not isinstance(base, Optimizer) or isinstance(base, F3EO):
        raise TypeError(
            f"base must be a torch.optim.Optimizer class or instance (SGD, AdamW, …), received "
            f"{base!r}"
        )
    closure = inspect.signature(type(base).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(
            f"{type(base).__name__} evaluates the loss several times a step and cannot be a base: "
            f"use SGD, AdamW or another that steps from gradients alone"
        )
    return base


def _check_same(world: World, problem: Problem) -> None:
    if not world.covers(problem.parameters):
        raise RuntimeError(
            "parameters were frozen, thawed or added since accumulate(): what it gathered belongs "
            "to others; call zero_grad() and accumulate again"
        )


def _keep_structure(base: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict of the base alone does not know which groups stay out of the structure term."""
    saved = state_dict["param_groups"]
    known = [{"structure": group["structure"]} for group in base.param_groups]
    known += [{}] * (len(saved) - len(known))
    groups = [{**own, **group} for own, group in zip(known, saved, strict=False)]
    return {**state_dict, "param_groups": groups}


def _listed(parameters: Any) -> Any:
    """Parameters as a list, an iterator's too; a set, which torch refuses, as it is."""
    if isinstance(parameters, Tensor):
        return [parameters]
    return parameters if isinstance(parameters, set) else list(parameters)


def _not_finite(loss: float, others: float, products: list[Products]) -> str | None:
    """What is not finite, or None."""
    if not isfinite(loss):
        return "the loss"
    if not isfinite(others + sum(p.gg for p in products)):
        return "the gradient"
    if not isfinite(sum(p.hh for p in products)):
        return "the structure gradient"
    return None
