"""Attention over a flat row of samples, inside each sample only, through transformers' attention interface.

Importing this module registers the attention implementation "medtune". Given `cu_seq_lens_q` it attends inside each
sample; without them it does what transformers' own SDPA attention does, so that generation works unchanged.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "medtune"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sample of a flat row.

    Args:
        module: the attention layer, unused but for transformers' own SDPA.
        query: (1, H, T, D); key and value: (1, H_kv, T, D) with H a multiple of H_kv.
        attention_mask: only for calls without `cu_seq_lens_q`.
        scaling: of the scores; None is 1/sqrt(D).
        dropout: probability on the attention weights.
        sliding_window: a token sees itself and this many minus one before it.
        softcap: tanh cap on the scores (Gemma 2).
        kwargs: `cu_seq_lens_q` (N + 1,) int32, where each sample begins, and `max_length_q` its longest.

    Returns:
        (1, T, H, D) and None, as transformers wants it.
    """
    cu_seqlens = kwargs.pop("cu_seq_lens_q", None)
    if cu_seqlens is None and softcap is None and (sliding_window is None or attention_mask is not None):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if cu_seqlens is None:
        attended = _attend(query, key, value, attention_mask, scaling, dropout, sliding_window, softcap)
        return attended.transpose(1, 2), None
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and not dropout and not softcap:
        varlen = _varlen_kernel()
        if varlen is not None:
            return varlen(query, key, value, cu_seqlens, kwargs["max_length_q"], scaling, sliding_window), None
    bounds = cu_seqlens.tolist()
    parts = [
        _attend(query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], None, scaling, dropout, sliding_window, softcap)
        for a, b in itertools.pairwise(bounds)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attention under a boolean mask, or, without one, causal over rows that end at the last key."""
    rows, columns = query.shape[2], key.shape[2]
    window = columns if sliding_window is None else sliding_window
    if mask is None and (window < columns or rows != columns or softcap is not None):
        ones = torch.ones(rows, columns, dtype=torch.bool, device=query.device)
        mask = ones.tril(columns - rows) & ones.triu(columns - rows + 1 - window)
    if softcap is None or mask is None:
        return F.scaled_dot_product_attention(
            query, key, value, mask, dropout, is_causal=mask is None, scale=scaling, enable_gqa=True
        )
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # not -inf: a row of padding alone stays finite
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return F.dropout(weights, dropout) @ value


@functools.cache
def _varlen_kernel() -> Callable[..., torch.Tensor] | None:
    """torch's variable-length flash attention on a GPU, or None where this torch has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    names = inspect.signature(varlen_attn).parameters
    if not {"window_size", "enable_gqa", "scale"} <= set(names):
        return None

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_length: int,
        scaling: float | None,
        sliding_window: int | None,
    ) -> torch.Tensor:
        query, key, value = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))  # (T, H, D)
        left = -1 if sliding_window is None else sliding_window - 1
        out: Any = varlen_attn(
            query,
            key,
            value,
            cu_seqlens,
            cu_seqlens,
            max_length,
            max_length,
            scale=scaling,
            window_size=(left, 0),
            enable_gqa=True,
        )
        return torch.unsqueeze(out, 0)

    return attend


def packed_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """No mask for a flat row (attention knows its samples by `cu_seqlens`); SDPA's mask where there is padding.

    transformers would else draw a dense (T, T) mask from the position ids of each flat row.
    """
    if attention_mask is None and q_length == kv_length:
        return None
    return sdpa_mask(batch_size, q_length, kv_length, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, packed_mask)
