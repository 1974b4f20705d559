"""Tiny random models of families that have no record here: they run on PyTorch."""

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
    "mamba": {
        "hidden_size": 64,
        "state_size": 32,
        "time_step_rank": 32,
        "num_hidden_layers": 2,
        "use_mambapy": False,
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
