"""Modules whose forward pass mixes the samples of a batch."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def mixing_modules(model: nn.Module | None) -> list[str]:
    """Names of the BatchNorm modules that normalise with the statistics of the batch."""
    return [
        name or type(module).__name__
        for name, module in (model.named_modules() if model is not None else ())
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
    ]


def refuse_mixing(model: nn.Module | None, what: str) -> None:
    """Raise because per-sample gradients are not defined where samples mix.

    Args:
        model: the module that mixes them, for the names in the message.
        what: what needs separate samples, the subject of the message.

    Raises:
        ValueError: always; it names the modules and the cures.
    """
    names = mixing_modules(model)
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "") or "a BatchNorm"
    raise ValueError(
        f"{what} needs samples that do not mix, but {shown} normalise(s) with batch statistics: "
        f"replace by GroupNorm or LayerNorm, freeze running statistics with .eval() on these "
        f"modules (again after every model.train()), or use estimator=MiniBatch()"
    )
