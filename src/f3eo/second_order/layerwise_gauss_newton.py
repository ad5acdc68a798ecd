"""Gauss-Newton steps with one block of G for each layer."""

from torch import Tensor

from f3eo.second_order.gauss_newton import GaussNewton


class LayerwiseGaussNewton(GaussNewton):
    """θ_l ← θ_l + lr · d_l with (G_ll + λ I) d_l = −∇_l L for each layer l: G block-diagonal.

    The model of a layer holds the other layers fixed, but all layers move at once. The predicted
    reduction is the sum over the layers. If layers work against each other, the loss falls less
    than predicted and the damping rises; a step that increases the loss is taken back.

    A layer is a module with parameters of its own (weight and bias together; a tied parameter
    belongs to the first module that has it). Without a module each parameter group is a layer.

    Args:
        model: a module, or parameter groups, one a layer.
        lr, damping, max_iterations (for each layer), tolerance, on_nonfinite: see `GaussNewton`.

    Raises:
        TypeError, ValueError: see `GaussNewton`.

    Source: Abreu, Vyas, Kakade & Morwani 2025 (arXiv 2510.09378), "layerwise Gauss-Newton".
    Deviations: they solve the blocks by a first-order method, and use a line search instead of the
    damping.
    """

    def _blocks(self, parameters: list[Tensor]) -> list[list[int]]:
        layers: dict[int, int] = {}
        owners = (
            [module.parameters(recurse=False) for module in self.model.modules()]
            if self.model is not None
            else [group["params"] for group in self.param_groups]
        )
        for number, owned in enumerate(owners):
            for p in owned:
                layers.setdefault(id(p), number)
        blocks: dict[int, list[int]] = {}
        for i, p in enumerate(parameters):
            blocks.setdefault(layers[id(p)], []).append(i)
        return list(blocks.values())
