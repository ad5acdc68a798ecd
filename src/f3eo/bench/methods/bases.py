"""The first-order optimizers that others wrap, by name: SGD, AdamW, and Muon.

Muon is for matrices and kernels (flattened to matrices); vectors and embeddings are AdamW's, as
its authors ask. pytorch_optimizer's does both in one optimizer, so that it can be wrapped. The
"adjusted" rate gives Muon's update the size of AdamW's, so that both share one learning rate and
one weight decay (arXiv 2502.16982).
"""

from collections.abc import Mapping
from typing import Any

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer


class Muon(pytorch_optimizer.Muon):
    """The package's Muon, but for the type it iterates in.

    That is bfloat16 there; a processor that cannot multiply in it takes thirty times as long as
    in float32, which it then gets.
    """

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
        known = updates[0].device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if known or group["ns_method"] != "newton_schulz":
            return pytorch_optimizer.Muon._orthogonalize(group, updates)
        how = {"num_steps": group["ns_steps"], "weights": group["ns_coeffs"]}
        matrices = [update.flatten(1) for update in updates]
        return [zero_power_via_newton_schulz_5(m, dtype=m.dtype, **how) for m in matrices]


BASES: Mapping[str, type[Any]] = {"sgd": SGD, "adamw": AdamW, "muon": Muon}


OPTIONS = ("base", "lr", "weight_decay", "momentum")
"""What a method that wraps a base says of it."""


def base(name: str) -> type[Any]:
    """The class of a base optimizer.

    Raises:
        ValueError: a name nobody knows.
    """
    if name not in BASES:
        raise ValueError(f"unknown base {name!r}; choose from {', '.join(BASES)}")
    return BASES[name]


def groups(name: str, model: nn.Module) -> list[dict[str, Any]]:
    """All parameters of a model in the groups a base asks for."""
    if name != "muon":
        return [{"params": list(model.parameters())}]
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for p in model.parameters():
        parts[p.ndim >= 2 and id(p) not in tables].append(p)
    return [{"params": found, "use_muon": kind} for kind, found in parts.items() if found]


def settings(name: str, lr: float, weight_decay: float, momentum: float) -> dict[str, Any]:
    """What a base's class takes; momentum is AdamW's β₁, its β₂ is 0.999 everywhere."""
    shared = {"lr": lr, "weight_decay": weight_decay}
    if name == "adamw":
        return {**shared, "betas": (momentum, 0.999)}
    if name == "muon":
        adamw = {"adamw_lr": lr, "adamw_wd": weight_decay, "adamw_betas": (0.9, 0.999)}
        adjusted = {"use_adjusted_lr": True, "adamw_eps": 1e-8}
        return {**shared, "momentum": momentum, **adamw, **adjusted}
    return {**shared, "momentum": momentum}


def own(options: Mapping[str, Any]) -> dict[str, Any]:
    """The base's settings among a method's options: `base`, `lr`, `weight_decay`, `momentum`."""
    return settings(options["base"], **{name: options[name] for name in OPTIONS[1:]})


def built(model: nn.Module, options: Mapping[str, Any]) -> Optimizer:
    """The base a method's options name, over all parameters of a model."""
    name = options["base"]
    return base(name)(groups(name, model), **own(options))
