"""Losses of single samples from the heads of transformers' models.

A model of transformers returns the mean loss of its batch. Here the same loss, from its logits and
labels, for every sample or token:

    regression        ℓ_i = mean over outputs of (f_i − y_i)²
    several labels    ℓ_i = mean over labels of the binary cross-entropy
    one label         ℓ_i = −log p(y_i)
    tokens            ℓ_it = −log p(y_it), with weight 1, or 0 where y_it = −100; the label of a
                      causal model is the next token
"""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from f3eo.closure.weighted import Weighted

IGNORED = -100

CURE = "give compute_loss_func(outputs, labels, num_items_in_batch) that returns a loss a sample"


def shifts_labels(model: nn.Module) -> bool:
    """Whether a model predicts the next token: its labels are the inputs.

    Args:
        model: of transformers, or of peft around one.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore
    return type(inner).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()


def sample_losses(
    model: nn.Module,
    head: nn.Module,
    inputs: Mapping[str, Any],
    *,
    shifted: bool,
    smoothing: float = 0.0,
) -> Tensor | Weighted:
    """Losses (B,), or losses and weights of tokens (B, T).

    Args:
        model: called with all inputs but the labels.
        head: the same model without what wraps it; its `config.problem_type` says regression or
            several labels, where their form leaves it open.
        inputs: tensors with the samples in dimension 0; "labels" among them.
        shifted: whether the logits of a token are for the next one.
        smoothing: of labels, as in `torch.nn.functional.cross_entropy`.

    Raises:
        ValueError: no labels, a loss beside that of the labels, or logits and labels of another
            form.
    """
    inputs = dict(inputs)
    labels = inputs.pop("labels", None)
    if labels is None:
        raise ValueError(f'inputs {sorted(inputs)} have no "labels": {CURE}')
    if getattr(getattr(head, "config", None), "is_encoder_decoder", False) and labels.ndim == 2:
        made = head.prepare_decoder_input_ids_from_labels  # pyright: ignore
        inputs.setdefault("decoder_input_ids", made(labels=labels))  # pyright: ignore
    outputs = model(**inputs)
    if getattr(outputs, "aux_loss", None) is not None:
        raise ValueError(
            f"{type(head).__name__} adds a loss of its own (aux_loss), of the batch and not of its "
            f"samples: set output_router_logits=False, or {CURE}"
        )
    logits = getattr(outputs, "logits", None)
    if not isinstance(logits, Tensor):
        raise ValueError(f"{type(head).__name__} returned no logits: {CURE}")
    logits = logits.float() if logits.element_size() < 4 else logits
    kind = getattr(getattr(head, "config", None), "problem_type", None)
    if logits.ndim == 3 and labels.ndim == 2:
        return _of_tokens(logits, labels, shifted, smoothing)
    if logits.ndim == 2 and (kind == "regression" or (kind is None and logits.shape[1] == 1)):
        return F.mse_loss(logits, labels.reshape(logits.shape).to(logits), reduction="none")
    if logits.ndim == 2 and labels.shape == logits.shape:
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none")
    if logits.ndim == 2 and labels.numel() == len(logits):
        labels = labels.reshape(-1)
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    raise ValueError(
        f"{type(head).__name__} returned logits {tuple(logits.shape)} for labels "
        f"{tuple(labels.shape)}, of which the loss a sample is not known: {CURE}"
    )


def _of_tokens(logits: Tensor, labels: Tensor, shifted: bool, smoothing: float) -> Weighted:
    """Losses of tokens, and weights 1 and 0."""
    # Prompt tuning (peft) puts positions without a label before those of the inputs.
    labels = F.pad(labels, (logits.shape[1] - labels.shape[1], 0), value=IGNORED)
    if shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    kept = labels != IGNORED
    # Label smoothing counts ignored labels as 0 as well.
    losses = F.cross_entropy(
        logits.transpose(1, 2), labels, reduction="none", label_smoothing=smoothing
    )
    return Weighted(losses, kept.to(losses.dtype))
