"""Models that steps are priced on, by name; one family per file. Tasks share the architectures."""

from collections.abc import Mapping

from f3eo.bench.models.gpt import GPT64, GPT256
from f3eo.bench.models.mlp import MLP
from f3eo.bench.models.model import Model
from f3eo.bench.models.resnet import RESNET, RESNET20
from f3eo.bench.models.vit import VIT

MODELS: Mapping[str, Model] = {
    model.name: model for model in (MLP, RESNET, RESNET20, GPT64, GPT256, VIT)
}

USUAL = ("mlp", "resnet", "gpt", "vit")
"""The default of `f3eo cost`."""

__all__ = ["MODELS", "USUAL", "Model"]
