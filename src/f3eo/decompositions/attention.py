"""Attention as linear maps, a softmax and a sum with the bias, where parameters are in it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.decompositions.mode import decompose


@decompose(F.scaled_dot_product_attention)
def dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As torch's; a learned `attn_mask` (relative positions) is added by an ordinary addition."""
    if attn_mask is None or not attn_mask.requires_grad or is_causal:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        heads = query.shape[-3]
        key, value = (t.repeat_interleave(heads // t.shape[-3], -3) for t in (key, value))
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.mT * factor + attn_mask
    masked = (scores == -torch.inf).all(-1, keepdim=True)  # every key masked: zeros, not NaN
    weights = scores.masked_fill(masked, 0.0).softmax(-1).masked_fill(masked, 0.0)
    return F.dropout(weights, dropout_p) @ value


@decompose(F.multi_head_attention_forward)
def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """As `torch.nn.functional.multi_head_attention_forward`; shapes inside are (T, B, E)."""
    single = query.ndim == 2
    if single:
        query, key, value = (t.unsqueeze(1) for t in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    _, batch, width = query.shape
    q, k, v = _projected(
        (query, key, value),
        in_proj_weight,
        (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None,
        in_proj_bias,
    )
    added = 0
    if bias_k is not None and bias_v is not None:
        k = torch.cat([k, bias_k.expand(1, batch, width)])
        v = torch.cat([v, bias_v.expand(1, batch, width)])
        added += 1

    def heads(t: Tensor) -> Tensor:
        return t.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)  # (B, h, T, E/h)

    q, k, v = heads(q), heads(k), heads(v)
    k = k if static_k is None else static_k.unflatten(0, (batch, num_heads))
    v = v if static_v is None else static_v.unflatten(0, (batch, num_heads))
    if add_zero_attn:
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        added += 1
    bias = _bias(attn_mask, key_padding_mask, q, k, added, is_causal)
    scores = q @ k.mT * (q.shape[-1] ** -0.5)
    weights = (scores if bias is None else scores + bias).softmax(-1)
    weights = F.dropout(weights, dropout_p, training) if dropout_p else weights
    out = (weights @ v).permute(2, 0, 1, 3).flatten(2)
    out = F.linear(out, out_proj_weight, out_proj_bias)
    shown = None
    if need_weights:
        shown = weights.mean(1) if average_attn_weights else weights
        shown = shown[0] if single else shown
    return (out[:, 0] if single else out), shown


def _projected(
    inputs: tuple[Tensor, Tensor, Tensor],
    packed: Tensor | None,
    separate: tuple[Tensor | None, ...] | None,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, by one linear map if all three inputs are the same tensor."""
    if separate is None:
        assert packed is not None
        if inputs[0] is inputs[1] is inputs[2]:
            q, k, v = F.linear(inputs[0], packed, bias).chunk(3, -1)
            return q, k, v
        separate = packed.chunk(3)
    biases = bias.chunk(3) if bias is not None else (None, None, None)
    q, k, v = (
        F.linear(x, w, b)  # pyright: ignore[reportArgumentType]
        for x, w, b in zip(inputs, separate, biases, strict=True)
    )
    return q, k, v


def _bias(
    attention: Tensor | None,
    padding: Tensor | None,
    q: Tensor,
    k: Tensor,
    added: int,
    causal: bool,
) -> Tensor | None:
    """Both masks as one term added to the scores (B, h, T, S); True masks a position."""

    def summand(mask: Tensor) -> Tensor:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, -torch.inf)
        return F.pad(mask, (0, added))

    if attention is None and causal:
        length, source = q.shape[2], k.shape[2] - added
        attention = torch.ones(length, source, dtype=torch.bool, device=q.device).triu(1)
    total = None
    if attention is not None:
        total = summand(attention)
        total = total.unflatten(0, q.shape[:2]) if total.ndim == 3 else total
    if padding is not None:
        extra = summand(padding)[:, None, None]
        total = extra if total is None else total + extra
    return total
