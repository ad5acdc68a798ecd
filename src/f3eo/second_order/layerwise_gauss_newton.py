"""Gauss-Newton with a block for every layer."""

from torch import Tensor

from f3eo.second_order.gauss_newton import GaussNewton


class LayerwiseGaussNewton(GaussNewton):
    """θ_l ← θ_l + lr · d_l with (G_ll + λ I) d_l = −∇_l L for every layer l: G without cross terms.

    Each layer's model holds the others fixed, and all layers move at once; the predicted reduction
    is the sum over the layers. Where layers work against each other the loss falls less than that,
    the damping rises, and a step that increases the loss is taken back.

    A layer is a module with parameters of its own (weight and bias together; a tied parameter
    belongs to the first module that has it). Without a module every parameter group is a layer.

    Args:
        model: a module, or parameter groups, one for each layer.
        lr, damping, max_iterations (for each layer), tolerance, on_nonfinite: see `GaussNewton`.

    Raises:
        TypeError, ValueError: see `GaussNewton`.

    Source: Abreu, Vyas, Kakade & Morwani 2025 (arXiv 2510.09378), "layerwise Gauss-Newton". There
    the blocks are solved by a first-order method on the quadratic model, and a line search takes
    the place of the damping.
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
