"""A transformers configuration as GGUF metadata: the keys from which llama.cpp builds the same
computation.

Architectures are listed, not guessed, and so is everything that a runtime fixes in its own code and
a file cannot say: which layers see a window, how attention is scaled, the activation. A
configuration that asks for something else is refused, because the file would load and answer
wrongly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.errors import UsageError
from .file import package

LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


@dataclass(frozen=True)
class Target:
    """What GGUF calls a model type, and how runtimes compute it.

    `interleaved`: rows of q and k take turns by halves of a head. `shifted`: norms are stored as 1
    + w, the factor that is computed with. `period`: one layer in so many sees everything, the
    others a window (0: no windows). `large`: the number of layers at which runtimes scale attention
    by the hidden width a head instead of the head's own.
    """

    name: str
    activation: str = "silu"
    interleaved: bool = False
    shifted: bool = False
    period: int = 0
    large: int = 0


TARGETS = {
    "llama": Target("llama", interleaved=True),
    "qwen2": Target("qwen2"),
    "qwen3": Target("qwen3"),
    "gemma2": Target("gemma2", "gelu_pytorch_tanh", shifted=True, period=2, large=46),
    "gemma3_text": Target("gemma3", "gelu_pytorch_tanh", shifted=True, period=6, large=62),
}


def target_of(config: Any) -> Target:
    """The GGUF architecture of `config`; UsageError for one that cannot be written exactly."""
    target = TARGETS.get(config.model_type)
    if target is None:
        raise UsageError(
            f"GGUF exports are written for {', '.join(TARGETS)}, not {config.model_type}; --to hf writes any model"
        )
    _check(config, target)
    return target


def head_dim(config: Any) -> int:
    """Width of one attention head."""
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def add_metadata(writer: Any, config: Any, target: Target) -> None:
    """Write the keys of the model's shape and computation."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head_dim(config))
    rope, local = _rope(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope.get("rope_type", "default") == "linear":
        writer.add_rope_scaling_type(package().RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if target.period:
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_freq_base_swa(float(local["rope_theta"]))
        for name in ("attn_logit_softcapping", "final_logit_softcapping"):
            if (cap := getattr(config, name, None)) is not None:
                getattr(writer, f"add_{name}")(float(cap))


def rope_factors(config: Any) -> np.ndarray | None:
    """Llama 3's divisors of the rotary frequencies, float32 (head_dim / 2), which files hold as a
    tensor; else None.
    """
    rope, _ = _rope(config)
    if rope.get("rope_type", "default") != "llama3":
        return None
    factor, low, high, old = (float(rope[key]) for key in LLAMA3_KEYS)
    width = head_dim(config)
    wavelength = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, width, 2) / width)
    smooth = np.clip((old / wavelength - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def _rope(config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rotary settings of layers that see everything, and of those that see a window."""
    settings = dict(config.rope_parameters)
    if "full_attention" in settings:
        full: dict[str, Any] = settings["full_attention"]
        return full, settings.get("sliding_attention") or full
    return settings, settings


def _check(config: Any, target: Target) -> None:
    layers = range(config.num_hidden_layers)
    windows = [target.period > 0 and (i + 1) % target.period > 0 for i in layers]
    kinds = getattr(config, "layer_types", None) or ["full_attention" for _ in layers]
    if kinds != ["sliding_attention" if window else "full_attention" for window in windows]:
        raise _refused(
            config, f"layer_types {kinds[:4]}...", f"{target.name} files have fixed windows"
        )
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    if activation != target.activation:
        raise _refused(
            config,
            f"the activation {activation}",
            f"{target.name} files are run with {target.activation}",
        )
    if getattr(config, "partial_rotary_factor", None) not in (None, 1, 1.0):
        raise _refused(
            config, "a partial rotary embedding", f"{target.name} files rotate the whole head"
        )
    rope, local = _rope(config)
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear") and not (kind == "llama3" and target.name == "llama"):
        raise _refused(
            config, f"rope_type {kind}", "only default, linear and (for llama) llama3 are written"
        )
    if local is not rope and local.get("rope_type", "default") != "default":
        raise _refused(
            config, "scaled windows", "files scale the rotation of the other layers only"
        )
    if target.shifted:
        wanted = (
            config.hidden_size / config.num_attention_heads
            if len(layers) == target.large
            else head_dim(config)
        )
        if config.query_pre_attn_scalar != wanted:
            raise _refused(
                config,
                f"query_pre_attn_scalar {config.query_pre_attn_scalar}",
                f"files imply {wanted}",
            )
        if (config.attn_logit_softcapping is None) != (target.name == "gemma3"):
            raise _refused(
                config,
                f"attn_logit_softcapping {config.attn_logit_softcapping}",
                "files imply another",
            )
        if getattr(config, "use_bidirectional_attention", None):
            raise _refused(config, "bidirectional attention", "files are run causally")


def _refused(config: Any, what: str, why: str) -> UsageError:
    return UsageError(
        f"this {config.model_type} model has {what}, but {why}; --to hf writes it as it is"
    )
