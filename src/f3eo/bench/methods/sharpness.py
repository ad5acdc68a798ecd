"""Variants of SAM: ASAM, GSAM, LookSAM, WSAM, gradient penalty, FriendlySAM and bSAM.

All are from pytorch_optimizer. Options named `base` choose what is wrapped; the others wrap SGD.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from pytorch_optimizer import BSAM, GSAM, SAM, WSAM, FriendlySAM, LookSAM
from torch import Tensor, nn
from torch.optim import SGD

from f3eo.bench.methods.bases import BASES, OPTIONS, base_arguments, base_named
from f3eo.bench.methods.method import Closure, ClosureStepper, Method, Source, Stepper, evaluation
from f3eo.bench.methods.sam import TWO_GRADIENTS, SharpnessAwareStepper


class LookSharpnessStepper(SharpnessAwareStepper):
    """LookSAM without the gradient that its `step` discards in between SAM steps."""

    optimizer: LookSAM

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """SAM's two gradients every k steps; otherwise one gradient, in the optimizer's step."""
        if self.optimizer.get_step() % self.optimizer.k == 0:
            return super().step(closure, x, y)
        losses = list[Tensor]()
        gradient = evaluation(closure, x, y, self.optimizer)
        self.optimizer.step(lambda: losses.append(gradient()))  # type: ignore[arg-type]
        return losses[0]


class SurrogateGapStepper(Stepper):
    """GSAM takes both gradients itself; its closure returns (outputs, loss)."""

    def __init__(self, optimizer: GSAM) -> None:
        self.optimizer = optimizer
        self.optimizers = (optimizer.base_optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """Perturb, take the gradient there, decompose the first gradient along it, descend."""
        gradient = torch.enable_grad()(evaluation(closure, x, y, self.optimizer))
        return self.optimizer.step(lambda: (None, gradient()))[1]  # type: ignore[arg-type]


class ConstantRadius:
    """A schedule of rho with GSAM's interface: `step` returns the next radius, always rho."""

    def __init__(self, rho: float) -> None:
        self.rho = rho

    def step(self) -> float:
        """Rho."""
        return self.rho


def _wrapped(
    kind: Callable[..., Any], model: nn.Module, options: Mapping[str, Any], **more: Any
) -> Any:
    """A wrapper around the base that the options name; other options go to the wrapper."""
    base, arguments = base_named(options["base"]), base_arguments(options)
    rest = {name: value for name, value in options.items() if name not in (*arguments, *OPTIONS)}
    return kind(base.groups(model), base.optimizer, **rest, **arguments, **more)


def asam(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Adaptive SAM: perturbations are scaled by the size of each parameter."""
    return SharpnessAwareStepper(_wrapped(SAM, model, options, adaptive=True))


def gsam(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """GSAM around SGD, with a constant radius."""
    arguments = {name: options[name] for name in ("lr", "momentum", "weight_decay")}
    sgd, radius = SGD(model.parameters(), **arguments), ConstantRadius(options["rho"])
    optimizer = GSAM(model.parameters(), sgd, model, radius, alpha=options["alpha"])
    return SurrogateGapStepper(optimizer)


def looksam(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """LookSAM around a base."""
    return LookSharpnessStepper(_wrapped(LookSAM, model, options))


def wsam(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """WSAM around SGD."""
    return ClosureStepper(WSAM(model, model.parameters(), SGD, **options))


def penalty(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """The gradient-norm penalty λ‖∇L‖ around a base, (1 − α) ∇L(θ) + α ∇L(θ + r∇L/‖∇L‖), α = λ/r.

    This is WSAM without decoupling, with γ/(1 − γ) = α.
    """
    rest = {name: value for name, value in options.items() if name != "alpha"}
    gamma = options["alpha"] / (1 + options["alpha"])
    return ClosureStepper(_wrapped(partial(WSAM, model), model, rest, gamma=gamma, decouple=False))


def fsam(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """FriendlySAM around SGD."""
    return SharpnessAwareStepper(FriendlySAM(model.parameters(), SGD, **options))


def bsam(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Bayesian SAM, which wraps no base; its noise comes from torch's global generator."""
    return ClosureStepper(BSAM(model.parameters(), **options))


def _row(
    name: str,
    label: str,
    colour: str,
    kind: str,
    paper: str,
    own: Mapping[str, Any],
    build: Callable[[nn.Module, Mapping[str, Any], int], Stepper],
    **more: Any,
) -> Method:
    source = Source("pytorch-optimizer", f"pytorch_optimizer.{kind}", paper)
    choices = {"base": BASES} if "base" in own else {}
    given = {
        "choices": choices,
        "needs": TWO_GRADIENTS,
        "order": 1,
        "kind": "sharpness-aware",
        "defaults": {**BASES["sgd"].defaults, **own},
    }
    return Method(
        name=name, label=label, colour=colour, source=source, build=build, **{**given, **more}
    )


METHODS = (
    _row("asam", "ASAM", "#d55e00", "SAM", "arXiv 2102.11600", {"rho": 1.0, "base": "sgd"}, asam),
    _row(
        "gsam",
        "GSAM",
        "#b8860b",
        "GSAM",
        "arXiv 2203.08065",
        {"rho": 0.1, "alpha": 0.1},
        gsam,
        note="step(closure) wants a closure that returns a pair and switches gradients on itself",
    ),
    _row(
        "looksam",
        "LookSAM",
        "#c49c00",
        "LookSAM",
        "arXiv 2203.02714",
        {"rho": 0.1, "k": 5, "alpha": 0.7, "base": "sgd"},
        looksam,
        note="called as documented it takes, and discards, a first gradient at every step: 2.00 "
        "each; here that gradient is left out between the looks",
    ),
    _row("wsam", "WSAM", "#a0522d", "WSAM", "arXiv 2305.15817", {"rho": 0.1, "gamma": 0.5}, wsam),
    _row(
        "penalty",
        "gradient penalty",
        "#8c6d31",
        "WSAM",
        "arXiv 2202.03599",
        {"rho": 0.1, "alpha": 0.8, "base": "sgd"},
        penalty,
        note="WSAM(decouple=False) with gamma = alpha/(1 + alpha) is this paper's step, "
        "alpha = lambda/r and r = rho; WSAM's own way is wsam",
    ),
    _row("fsam", "FriendlySAM", "#e377c2", "FriendlySAM", "arXiv 2403.12350", {"rho": 0.1}, fsam),
    _row(
        "bsam",
        "bSAM",
        "#9c755f",
        "BSAM",
        "arXiv 2210.01620",
        {},
        bsam,
        needs="gradient at noisy weights and at perturbed ones",
        defaults={"lr": 0.5, "num_data": 600, "weight_decay": 1e-4, "rho": 0.05, "damping": 0.1},
        note="step(closure) raises where no gradient was taken before; past that, the package "
        "multiplies the gradient by weight_decay where the paper adds weight_decay times weights",
    ),
)
