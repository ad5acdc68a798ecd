"""Modules whose forward pass mixes the samples of a batch."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def mixing(model: nn.Module | None) -> list[str]:
    """Names of modules whose forward mixes the samples of a batch (batch statistics)."""
    return [
        name or type(module).__name__
        for name, module in (model.named_modules() if model is not None else ())
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
    ]


def refuse_mixing(model: nn.Module | None, what: str) -> None:
    """Raise because batch statistics mix the samples, so per-sample gradients are not defined.

    Raises:
        ValueError: names the modules and the ways out.
    """
    names = mixing(model)
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "") or "a BatchNorm"
    raise ValueError(
        f"{what} needs samples that do not mix, but {shown} normalise(s) with batch statistics: "
        f"replace by GroupNorm or LayerNorm, freeze running statistics with .eval() on these "
        f"modules (again after every model.train()), or use estimator=MiniBatch()"
    )
