"""The tiny models as GGUF files, written with the format's own package and the keys of llama.cpp's
converter: what `interchange/gguf/` must undo.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

Change = Callable[[gguf.GGUFWriter, dict[str, np.ndarray]], None]


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as llama.cpp wants them for Llama models: the two halves of each head take
    turns.
    """
    return rows.reshape(heads, 2, len(rows) // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def architecture(config: Any) -> str:
    """What GGUF calls the family of `config`."""
    return {"gemma3_text": "gemma3"}.get(config.model_type, config.model_type)


def tensors(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Float32 tensors by their GGUF names."""
    config = model.config
    name = architecture(config)
    arch = next(key for key, gguf_name in gguf.MODEL_ARCH_NAMES.items() if gguf_name == name)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    by_name = {}
    for name, tensor in model.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        rows = tensor.float().numpy()
        if config.model_type in ("llama", "granite") and (".q_proj." in name or ".k_proj." in name):
            rows = interleave(
                rows,
                config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads,
            )
        if config.model_type.startswith("gemma") and name.endswith("norm.weight"):
            rows = rows + np.float32(1)
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        by_name[gguf_name] = np.ascontiguousarray(rows)
    for key in ("short", "long"):
        if factors := config.rope_parameters.get(f"{key}_factor"):
            by_name[f"rope_factors_{key}.weight"] = np.array(factors, np.float32)
    return by_name


def write(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    pre: str = "gpt-2",
    change: Change | None = None,
) -> Path:
    """Write `path`; matrices whose width allows it are stored as `kind`. `change(writer, tensors)`
    may spoil it first."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture(config))
    # With phi3 in its name, llama.cpp would let tokens take the spaces after them.
    writer.add_name(f"tiny {config.model_type}".replace("phi3", "phi 3"))
    writer.add_string("general.license", "apache-2.0")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    width = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    _add_family_keys(writer, model)
    _add_tokenizer(writer, tokenizer, pre)
    arrays = tensors(model)
    if change is not None:
        change(writer, arrays)
    for name, rows in arrays.items():
        block = gguf.GGML_QUANT_SIZES[kind][0]
        if kind is gguf.GGMLQuantizationType.F32 or rows.ndim < 2 or rows.shape[-1] % block:
            writer.add_tensor(name, rows)
        else:
            writer.add_tensor(name, gguf.quants.quantize(rows, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_family_keys(writer: gguf.GGUFWriter, model: PreTrainedModel) -> None:
    config = model.config
    if config.model_type.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
        writer.add_uint32(
            f"{architecture(config)}.attention.sliding_window_pattern",
            config.layer_types.index("full_attention") + 1,
        )
        if config.attn_logit_softcapping:
            writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        if config.final_logit_softcapping:
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if config.model_type == "granite":
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if config.model_type == "phi3":
        writer.add_sliding_window(config.sliding_window or 0)
    if factors := config.rope_parameters.get("short_factor"):
        writer.add_rope_dimension_count(2 * len(factors))
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
        writer.add_rope_scaling_attn_factors(model.model.rotary_emb.attention_scaling)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast, pre: str) -> None:
    description: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = {entry["content"] for entry in description["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges([" ".join(merge) for merge in description["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)
