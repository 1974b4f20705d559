"""Gemma 3, the text model (arXiv:2503.19786). It differs from Gemma 2 in three points: a norm on
each head of q and k instead of soft caps; five layers with a sliding window for each layer with
full attention; and a rotary base of its own for each of these two kinds of layers.
"""

from __future__ import annotations

from .base import FINAL_CAP, HEAD_NORMS, SANDWICH_NORMS, Family, GGUFRules

GEMMA3 = Family(
    model_type="gemma3_text",
    gguf=GGUFRules(
        "gemma3",
        activation="gelu_pytorch_tanh",
        local_rope_theta=10_000.0,
        softcaps={FINAL_CAP: None},
        hidden_scale_layers=62,  # the 27B model
    ),
    norms=SANDWICH_NORMS,
    defaults={
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131072,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-6,
        "rope_local_base_freq": 10_000.0,
        "rope_theta": 1_000_000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    },
    head_norms=HEAD_NORMS,
    norm_offset=1.0,
    window_period=6,
    bias_flags={"attention_bias": "query"},
    has_query_scalar=True,
    has_softcaps=True,
    scales_embedding=True,
)
