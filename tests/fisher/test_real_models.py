"""Models that people train, random weights, against a loop over single samples in float64."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from exact import check

VOCABULARY, LENGTH, CLASSES = 23, 4, 5
BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": LENGTH,
}


class LanguageModel(nn.Module):
    """Embedding, two layers of LSTM, head."""

    def __init__(self, tied):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 8)
        self.lstm = nn.LSTM(8, 8, 2, batch_first=True)
        self.head = nn.Linear(8, VOCABULARY)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, index):
        return self.head(self.lstm(self.tokens(index))[0])


def resnet18():
    """Half as wide as the published one, with its 18 layers; the images are small."""
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128, 256],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=CLASSES,
    )
    return ResNetForImageClassification(config)


def frozen_statistics():
    """ResNet-18 in training, its BatchNorm layers frozen at statistics of real activations."""
    model = resnet18().train()
    with torch.no_grad():
        model(torch.randn(8, 3, 32, 32))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def group_norm():
    """ResNet-18 with GroupNorm."""
    model = resnet18()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(8, child.num_features))
    return model


def vit():
    """ViT-Tiny's width and heads, two layers instead of twelve, patches of 8 pixels."""
    config = ViTConfig(
        hidden_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=32,
        patch_size=8,
        num_labels=CLASSES,
    )
    return ViTForImageClassification(config).eval()


def swin():
    """Windows folded into the batch, a learned bias in the attention."""
    config = SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[2, 1],
        num_heads=[2, 2],
        window_size=4,
        num_labels=CLASSES,
    )
    return SwinForImageClassification(config).eval()


def gpt2():
    """Two layers, the head tied to the embedding."""
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=2, n_head=2, **ends
    )
    model = GPT2LMHeadModel(config).eval()
    assert model.lm_head.weight is model.transformer.wte.weight
    return model


def bert():
    """The head tied to the embedding, segment ids from a buffer."""
    return BertForMaskedLM(BertConfig(**BERT)).eval()


def deberta():
    """Relative positions repeated for every head of every sample."""
    relative = {"relative_attention": True, "position_buckets": 4, "pos_att_type": ["c2p", "p2c"]}
    return DebertaV2ForMaskedLM(DebertaV2Config(**BERT, **relative)).eval()


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def every_layer_has_a_rule(caplog):
    """What has none is logged."""
    with caplog.at_level(logging.INFO, "f3eo"):
        yield
    assert not [r.getMessage() for r in caplog.get_records("call") if r.name == "f3eo"]


def images(count):
    return torch.randn(count, 3, 32, 32), torch.randint(CLASSES, (count,))


def tokens(count):
    return torch.randint(VOCABULARY, (count, LENGTH))


# One sample, and as many samples as positions.
counts = pytest.mark.parametrize("count", [1, LENGTH])


@counts
@pytest.mark.parametrize("make", [frozen_statistics, group_norm, vit, swin])
@pytest.mark.usefixtures("every_layer_has_a_rule")
def test_image_classifiers_are_exact(make, count):
    model = make()

    def closure(x, y):
        return F.cross_entropy(model(x).logits, y, reduction="none")

    check(model, closure, *images(count))


def next_tokens(logits, index):
    """(B, T−1) losses of the following token."""
    return F.cross_entropy(logits[:, :-1].mT, index[:, 1:], reduction="none")


@counts
@pytest.mark.usefixtures("every_layer_has_a_rule")
def test_gpt2_with_its_tied_head_is_exact(count):
    model = gpt2()
    check(model, lambda index: next_tokens(model(index).logits, index), tokens(count))


@counts
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.usefixtures("every_layer_has_a_rule")
def test_an_lstm_language_model_is_exact(tied, count):
    model = LanguageModel(tied)
    check(model, lambda index: next_tokens(model(index), index), tokens(count))


@counts
@pytest.mark.parametrize("make", [bert, deberta])
@pytest.mark.usefixtures("every_layer_has_a_rule")
def test_masked_language_models_are_exact_on_padded_text(make, count):
    model = make()
    mask = torch.ones(count, LENGTH, dtype=torch.long)
    mask[-1, 2:] = 0

    def closure(index, mask, target):
        logits = model(index, attention_mask=mask).logits
        return F.cross_entropy(logits.mT, target, reduction="none") * mask

    check(model, closure, tokens(count), mask, tokens(count))


@counts
@pytest.mark.usefixtures("every_layer_has_a_rule")
def test_bert_as_a_classifier_is_exact(count):
    model = BertForSequenceClassification(BertConfig(**BERT, num_labels=CLASSES)).eval()

    def closure(index, y):
        return F.cross_entropy(model(index).logits, y, reduction="none")

    check(model, closure, tokens(count), torch.randint(CLASSES, (count,)))
