"""The cheap control of sharpness-aware methods: a penalty on the last layer and what enters it.

Baek et al. (arXiv 2405.03676, section 5) derive it as what SAM does to the Jacobian of a two-layer
linear network, and find that it has most of SAM's gain under label noise.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from f3eo.bench.methods.bases import BASES, build_base
from f3eo.bench.methods.method import GRADIENT, Closure, Method, Source, Stepper


class LastLayerStepper(Stepper):
    """The base descends on (1/B) Σ_i (ℓ_i + c_a ‖a_i‖²) + c_w ‖W‖².

    W is the weight of the model's last linear layer and a_i its input, with ‖a_i‖² the mean over
    positions where a sample has several.

    Args:
        model: has a linear layer.
        optimizer: the base, on all parameters.
        weight, activation: c_w, c_a, in nats over a squared norm.

    Raises:
        ValueError: the model has no linear layer.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, weight: float, activation: float
    ) -> None:
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise ValueError(
                f"{type(model).__name__} has no nn.Linear to penalise; take one that ends in one"
            )
        self.layer, self.weight, self.activation = layers[-1], weight, activation
        self.optimizer = optimizer
        self.optimizers = (optimizer,)

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One gradient of loss and penalty, one step; returns the mean loss without the penalty."""
        entered: list[Tensor] = []
        hook = self.layer.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        self.optimizer.zero_grad()
        try:
            loss = closure(x, y).mean()
        finally:
            hook.remove()
        squares = entered[-1].to(loss.dtype).square().sum(-1).mean()
        penalty = self.activation * squares + self.weight * self.layer.weight.square().sum()
        (loss + penalty).backward()
        self.optimizer.step()
        return loss.detach()


def build(model: nn.Module, options: Mapping[str, Any], seed: int) -> Stepper:
    """A base on all parameters with the penalty; deterministic, `seed` is unused."""
    penalties = options["weight_penalty"], options["activation_penalty"]
    return LastLayerStepper(model, build_base(model, options), *penalties)


METHOD = Method(
    name="last_layer",
    label="last-layer penalty",
    colour="#b07aa1",
    order=1,
    kind="penalty",
    needs=f"{GRADIENT}, and the input of the last linear layer",
    source=Source("f3eo", f"{__name__}.LastLayerStepper", "arXiv 2405.03676"),
    defaults={
        **BASES["sgd"].defaults,
        "weight_penalty": 1e-3,
        "activation_penalty": 1e-3,
        "base": "sgd",
    },
    build=build,
    choices={"base": BASES},
    note="no package has it: written here after the paper's formula",
)
