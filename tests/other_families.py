"""Tiny random models of families that have no record here: they run on PyTorch.

`RECURRENT` are those with states; some of them, and hybrids of them with attention, have more
matrices than the plan covers and are tested with the engine alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

WIDTHS = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**WIDTHS, "num_key_value_heads": 2}
MAMBA = {
    "hidden_size": 64,
    "state_size": 32,
    "time_step_rank": 32,
    "num_hidden_layers": 2,
    "use_mambapy": False,
}
HEADS = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "stablelm": {**GROUPED, "partial_rotary_factor": 0.25},
    "gpt_neox": WIDTHS,
    "falcon": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
    },
    "opt": {**WIDTHS, "ffn_dim": 128, "word_embed_proj_dim": 64},
    "gpt_bigcode": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "mamba": MAMBA,
    "falcon_mamba": MAMBA,
    "mamba2": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "state_size": 16,
        "num_heads": 8,
        "head_dim": 16,
        "n_groups": 1,
    },
    "falcon_h1": {**GROUPED, **HEADS, "mamba_d_ssm": 128},
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"]},
}
RECURRENT: dict[str, dict[str, Any]] = {
    **{name: SETTINGS[name] for name in ("mamba", "falcon_mamba", "mamba2", "falcon_h1", "lfm2")},
    "jamba": {
        **GROUPED,
        "num_experts": 1,
        "num_experts_per_tok": 1,
        "use_mamba_kernels": False,
        "mamba_d_state": 16,
        "mamba_dt_rank": 8,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
    },
    "granitemoehybrid": {
        **GROUPED,
        **HEADS,
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "shared_intermediate_size": 128,
        "layer_types": ["mamba", "attention"],
    },
    "qwen3_5_text": {
        **GROUPED,
        "num_hidden_layers": 4,
        "head_dim": 16,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
}


def model(name: str, seed: int = 0) -> PreTrainedModel:
    """A model of the family `name`, as `build` makes it."""
    return build(name, SETTINGS[name], seed)


def build(model_type: str, settings: Mapping[str, Any], seed: int = 0) -> PreTrainedModel:
    """A random model in evaluation mode, with weights that are larger than usual.

    The logits then depend visibly on every matrix. The caller's random state does not change.
    """
    config = AutoConfig.for_model(
        model_type,
        vocab_size=300,
        max_position_embeddings=512,
        initializer_range=0.12,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()
