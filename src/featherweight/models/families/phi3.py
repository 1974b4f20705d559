"""Phi-3 and Phi-4 (arXiv:2404.14219): one matrix for q, k and v and one for gate and up; rotary
positions that may turn only part of each head, and LongRoPE (arXiv:2402.13753) for long contexts.

Runtimes of GGUF files have no window for this family, though some of its models were made with one.
"""

from __future__ import annotations

from .base import FUSED_MATRICES, PRE_NORMS, Family, GGUFRules

PHI3 = Family(
    model_type="phi3",
    gguf=GGUFRules("phi3", rope_types=("default", "longrope")),
    norms=PRE_NORMS,
    defaults={
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    matrices=FUSED_MATRICES,
    has_window=True,
    has_head_dim=False,
    has_partial_rope=True,
    longrope_names=("su", "yarn"),
)
