"""Llama 1 to 3 and models with the same computation: SmolLM and others.

Llama 3.1 and later divide the rotary frequencies of long wavelengths; GGUF stores one divisor for
each frequency.
"""

from __future__ import annotations

from .base import PRE_NORMS, Family, GGUFRules

LLAMA = Family(
    model_type="llama",
    gguf=GGUFRules("llama", interleaved_heads=True, rope_types=("default", "linear", "llama3")),
    norms=PRE_NORMS,
    defaults={
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
    },
    bias_flags={"attention_bias": "query", "mlp_bias": "gate"},
)
