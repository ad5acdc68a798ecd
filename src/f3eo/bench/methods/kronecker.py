"""Kronecker-factored preconditioners: Shampoo and SOAP (pytorch_optimizer), PSGD (heavyball)."""

from collections.abc import Mapping
from typing import Any

from pytorch_optimizer import SOAP, Shampoo
from torch import nn

from f3eo.bench.methods.method import (
    GRADIENT,
    ClosureStepper,
    GradientStepper,
    Method,
    Source,
    Stepper,
)


def shampoo(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """Shampoo on all parameters; deterministic, `seed` is unused."""
    return GradientStepper(Shampoo(model.parameters(), **options))


def soap(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """SOAP on all parameters; deterministic, `seed` is unused."""
    return GradientStepper(SOAP(model.parameters(), **options))


def psgd(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """PSGD fitted to gradients; its probes come from torch's global generator."""
    return GradientStepper(_heavyball(model, options))


def newton(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """PSGD fitted to Hessian-vector products, which the optimizer takes itself.

    The interval is so long that every fit but the first uses a product; see the note.
    """
    hessian = {"hessian_approx": True, "hvp_interval": 10**9}
    return ClosureStepper(_heavyball(model, {**options, **hessian}))


def _heavyball(model: nn.Module, options: Mapping[str, Any]) -> Any:
    import heavyball  # here: slow, and rarely needed

    heavyball.utils.compile_mode = None  # otherwise every process compiles for 15 s
    return heavyball.PSGDKron(list(model.parameters()), **options)


PACE = {"preconditioner_update_probability": 0.5}
"""Constant, so the cost of a step is constant; heavyball's default falls over many steps."""

METHODS = (
    Method(
        name="shampoo",
        label="Shampoo",
        colour="#2ca02c",
        order=2,
        kind="Kronecker statistics",
        needs=GRADIENT,
        source=Source("pytorch-optimizer", "pytorch_optimizer.Shampoo", "arXiv 1802.09568"),
        defaults={"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0},
        build=shampoo,
    ),
    Method(
        name="soap",
        label="SOAP",
        colour="#1b7837",
        order=2,
        kind="Kronecker statistics",
        needs=GRADIENT,
        source=Source("pytorch-optimizer", "pytorch_optimizer.SOAP", "arXiv 2409.11321"),
        defaults={"lr": 3e-3, "weight_decay": 1e-2, "precondition_frequency": 10},
        build=soap,
    ),
    Method(
        name="psgd",
        label="PSGD",
        colour="#98a600",
        order=2,
        kind="Kronecker, fitted",
        needs=GRADIENT,
        source=Source("heavyball", "heavyball.PSGDKron", "arXiv 1512.04202"),
        defaults={"lr": 1e-3, "beta": 0.9, "weight_decay": 0.0, **PACE},
        build=psgd,
    ),
    Method(
        name="psgd_newton",
        label="PSGD-Newton",
        colour="#6b7a00",
        order=2,
        kind="Kronecker, fitted",
        needs="gradient, differentiated once more inside",
        source=Source("heavyball", "heavyball.PSGDKron", "arXiv 1512.04202"),
        defaults={"lr": 1e-3, "beta": 0.9, "weight_decay": 0.0, **PACE},
        build=newton,
        note="heavyball's hvp_interval is turned round: with the default, 1, hessian_approx never "
        "takes a Hessian product; here it is so long that every fit takes one",
    ),
)
