"""Newton-CG and Gauss-Newton by conjugate gradients: the three optimizers of f3eo.second_order.

A step takes at most a fixed number of curvature products, so its cost is bounded. Newton-CG may
stop earlier, at the boundary of its trust region; its cost is that on the network of
`f3eo.bench.methods.count`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.bench.methods.method import Closure, Method, Source, Stepper
from f3eo.closure.likelihood import Likelihood
from f3eo.second_order import GaussNewton, LayerwiseGaussNewton, NewtonCG
from f3eo.second_order.optimizer import SecondOrder

PRODUCTS = 4
"""Largest number of curvature products in a step."""


class Outputs(Likelihood):
    """Losses and the model outputs that they depend on, as Gauss-Newton needs them.

    Args:
        outputs: f, (B, …).
        losses: ℓ_i, (B,), a function of f.
    """

    def __init__(self, outputs: Tensor, losses: Tensor) -> None:
        self.parameters = outputs
        self._losses = losses

    def losses(self) -> Tensor:
        """See `Likelihood.losses`."""
        return self._losses

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Raise NotImplementedError: the losses need not be those of a likelihood."""
        raise NotImplementedError("losses without a likelihood have no labels to draw")

    def root(self, noise: Tensor) -> Tensor:
        """Raise NotImplementedError; see `sample`."""
        raise NotImplementedError("losses without a likelihood have no labels to draw")


class CurvatureStepper(Stepper):
    """The closure of the optimizer returns losses and outputs."""

    def __init__(self, model: nn.Module, optimizer: SecondOrder) -> None:
        self.model = model
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One step; it is undone if it does not lower the loss of the batch."""

        def evaluate(x: Tensor, y: Tensor) -> Outputs:
            outputs: list[Tensor] = []
            hook = self.model.register_forward_hook(
                lambda _, __, output: outputs.append(output)  # pyright: ignore[reportArgumentType]
            )
            try:
                losses = closure(x, y)
            finally:
                hook.remove()
            return Outputs(outputs[0], losses)

        return self.optimizer.step(evaluate, x, y)


def _newton(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    generator = torch.Generator().manual_seed(seed)
    return CurvatureStepper(model, NewtonCG(model, generator=generator, tolerance=1e-6, **options))


def _gauss_newton(
    kind: type[GaussNewton],
) -> Callable[[nn.Module, Mapping[str, Any], int], Stepper]:
    def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
        return CurvatureStepper(model, kind(model, tolerance=1e-6, **options))

    return build


NOTE = f"at most {PRODUCTS} curvature products a step"

METHODS = (
    Method(
        name="newton_cg",
        label="Newton-CG",
        colour="#0e7490",
        order=2,
        kind="Hessian",
        needs="losses, re-evaluated on the same batch",
        source=Source("f3eo", "f3eo.second_order.NewtonCG", "Steihaug 1983", extra=""),
        defaults={"lr": 1.0, "radius": 1.0, "max_iterations": PRODUCTS},
        build=_newton,
        note=NOTE,
    ),
    Method(
        name="gauss_newton",
        label="Gauss-Newton",
        colour="#155e75",
        order=2,
        kind="Gauss-Newton",
        needs="losses and outputs, re-evaluated on the same batch",
        source=Source("f3eo", "f3eo.second_order.GaussNewton", "Martens 2010", extra=""),
        defaults={"lr": 1.0, "damping": 1.0, "max_iterations": PRODUCTS},
        build=_gauss_newton(GaussNewton),
        note=NOTE,
    ),
    Method(
        name="layerwise_gn",
        label="layerwise Gauss-Newton",
        colour="#67a3b5",
        order=2,
        kind="Gauss-Newton by layers",
        needs="losses and outputs, re-evaluated on the same batch",
        source=Source("f3eo", "f3eo.second_order.LayerwiseGaussNewton", "2510.09378", extra=""),
        defaults={"lr": 1.0, "damping": 1.0, "max_iterations": PRODUCTS},
        build=_gauss_newton(LayerwiseGaussNewton),
        note=NOTE,
    ),
)
