"""Granite 3, dense: Llama with factors of embeddings, attention scores and additions to the
residual, and a divisor of logits.
"""

from __future__ import annotations

from .base import PRE_NORMS, Family, GGUFRules

GRANITE = Family(
    model_type="granite",
    gguf=GGUFRules("granite", interleaved_heads=True),
    norms=PRE_NORMS,
    defaults={
        "attention_multiplier": 1.0,
        "embedding_multiplier": 1.0,
        "hidden_act": "silu",
        "logits_scaling": 1.0,
        "max_position_embeddings": 2048,
        "residual_multiplier": 1.0,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
    },
    bias_flags={"attention_bias": "query", "mlp_bias": "gate"},
    has_head_dim=False,
    has_multipliers=True,
)
