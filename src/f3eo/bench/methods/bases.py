"""Base optimizers that other methods wrap: SGD, AdamW and Muon, with their defaults.

Muon updates matrices and flattened kernels; AdamW updates vectors and embeddings, as Muon's authors
recommend. pytorch_optimizer's Muon does both in one optimizer, so it can be wrapped. Its "adjusted"
learning rate gives Muon's update the size of AdamW's, so both share one learning rate and one
weight decay (arXiv 2502.16982).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

Groups = list[dict[str, Any]]
"""Parameter groups, as torch optimizers take them."""


class Muon(pytorch_optimizer.Muon):
    """pytorch_optimizer.Muon, iterating in float32 where the processor has no bfloat16.

    The package always iterates in bfloat16, which takes thirty times as long on such a processor.
    """

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
        supported = updates[0].device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if supported or group["ns_method"] != "newton_schulz":
            return pytorch_optimizer.Muon._orthogonalize(group, updates)
        options = {"num_steps": group["ns_steps"], "weights": group["ns_coeffs"]}
        matrices = [update.flatten(1) for update in updates]
        return [zero_power_via_newton_schulz_5(m, dtype=m.dtype, **options) for m in matrices]


def _sgd_arguments(lr: float, weight_decay: float, momentum: float) -> dict[str, Any]:
    return {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}


def _adamw_arguments(lr: float, weight_decay: float, momentum: float) -> dict[str, Any]:
    return {"lr": lr, "weight_decay": weight_decay, "betas": (momentum, 0.999)}


def _muon_arguments(lr: float, weight_decay: float, momentum: float) -> dict[str, Any]:
    adamw = {"adamw_lr": lr, "adamw_wd": weight_decay, "adamw_betas": (0.9, 0.999)}
    adjusted = {"use_adjusted_lr": True, "adamw_eps": 1e-8}
    return {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, **adamw, **adjusted}


def _one_group(model: nn.Module) -> Groups:
    return [{"params": list(model.parameters())}]


def _muon_groups(model: nn.Module) -> Groups:
    """Matrices and kernels for Muon; vectors and embedding tables for AdamW."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for p in model.parameters():
        parts[p.ndim >= 2 and id(p) not in tables].append(p)
    return [{"params": part, "use_muon": muon} for muon, part in parts.items() if part]


@dataclass(frozen=True)
class Base:
    """A first-order optimizer that other methods wrap.

    Args:
        optimizer: its class.
        lr, momentum, weight_decay: its defaults as a method of its own; `momentum` is AdamW's β₁.
        arguments: (lr, weight_decay, momentum) -> keyword arguments of the class.
        groups: model -> all its parameters, in the groups that the class takes.
    """

    optimizer: type[Any]
    lr: float
    momentum: float
    weight_decay: float
    arguments: Callable[[float, float, float], dict[str, Any]]
    groups: Callable[[nn.Module], Groups] = _one_group

    @property
    def defaults(self) -> dict[str, float]:
        """`lr`, `momentum` and `weight_decay` by name."""
        return {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}


BASES: Mapping[str, Base] = {
    "sgd": Base(SGD, 0.3, 0.9, 1e-3, _sgd_arguments),
    "adamw": Base(AdamW, 3e-3, 0.9, 1e-2, _adamw_arguments),  # β₂ is 0.999 everywhere
    "muon": Base(Muon, 3e-3, 0.95, 1e-2, _muon_arguments, _muon_groups),
}

OPTIONS = ("base", "lr", "weight_decay", "momentum")
"""Options of a wrapping method that describe its base."""


def base_named(name: str) -> Base:
    """The base of this name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in BASES:
        raise ValueError(f"unknown base {name!r}; choose from {', '.join(BASES)}")
    return BASES[name]


def over(base: str) -> dict[str, str | float]:
    """The options `base` and `momentum` of a method that wraps this base."""
    return {"base": base, "momentum": BASES[base].momentum}


def base_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the base's class, from the OPTIONS of a wrapping method."""
    base = base_named(options["base"])
    return base.arguments(options["lr"], options["weight_decay"], options["momentum"])


def build_base(model: nn.Module, options: Mapping[str, Any]) -> Optimizer:
    """The base that the options of a wrapping method name, on all parameters of a model."""
    base = base_named(options["base"])
    return base.optimizer(base.groups(model), **base_arguments(options))
