"""Gemma 2 (arXiv:2408.00118): norms that multiply by 1 + w, before and after attention and before
and after the feed-forward network; soft caps on attention scores and logits; a sliding window in
every other layer.
"""

from __future__ import annotations

from .base import ATTENTION_CAP, FINAL_CAP, SANDWICH_NORMS, Family, GGUFRules

GEMMA2 = Family(
    model_type="gemma2",
    gguf=GGUFRules(
        "gemma2",
        activation="gelu_pytorch_tanh",
        softcaps={ATTENTION_CAP: 50.0, FINAL_CAP: 30.0},
        hidden_scale_layers=46,  # the 27B model
        is_tied=True,
    ),
    norms=SANDWICH_NORMS,
    defaults={
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    },
    norm_offset=1.0,
    window_period=2,
    bias_flags={"attention_bias": "query"},
    has_query_scalar=True,
    has_softcaps=True,
    scales_embedding=True,
)
