"""OLMo 2 (arXiv:2501.00656): Llama with norms after attention and after the feed-forward network
instead of before them, and with norms of q and k over all heads together.
"""

from __future__ import annotations

from .base import HEAD_NORMS, POST_NORMS, Family, GGUFRules

OLMO2 = Family(
    model_type="olmo2",
    gguf=GGUFRules("olmo2"),
    norms=POST_NORMS,
    defaults={
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
    },
    head_norms=HEAD_NORMS,
    has_joint_head_norms=True,
    bias_flags={"attention_bias": "query"},
    has_head_dim=False,
)
