"""Writes the shape and the constants of a model as GGUF metadata, from which llama.cpp builds the
same computation.

Some properties of a family are constants in the code of llama.cpp and have no metadata key: which
layers have a sliding window, how attention is scaled, the activation function. A model whose
properties differ from these constants raises UsageError, because its file would load and give wrong
answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...base.errors import FeatherweightError, UsageError
from ...models import families
from ...models.families import FULL_ATTENTION, SLIDING_ATTENTION, Family, Hyperparameters, Rope
from .tensors import LONG_DIVISORS, ROPE_DIVISORS, SHORT_DIVISORS
from .types import package

SOFTCAP_WRITERS = {
    families.ATTENTION_CAP: "add_attn_logit_softcapping",
    families.FINAL_CAP: "add_final_logit_softcapping",
}


def read_exportable(config: Any) -> Hyperparameters:
    """The hyperparameters in a transformers configuration.

    Raises UsageError when GGUF cannot express the model exactly.
    """
    family = families.find(config.model_type)
    if family is None:
        names = ", ".join(record.model_type for record in families.FAMILIES)
        raise UsageError(
            f"GGUF exports are written for {names}, not {config.model_type}; "
            "--to hf writes any model"
        )
    try:
        numbers = families.read_hyperparameters(config.to_dict(), family)
        _check_layers(numbers)
        _check_ropes(numbers)
        _check_attention(numbers)
    except FeatherweightError as error:
        raise UsageError(
            f"this {config.model_type} model cannot be written to GGUF: {error}; "
            "--to hf writes it as it is"
        ) from error
    return numbers


def add_metadata(writer: Any, numbers: Hyperparameters) -> None:
    """Add the keys of the model's shape and constants to `writer`, a `gguf.GGUFWriter`."""
    writer.add_context_length(numbers.context)
    writer.add_embedding_length(numbers.hidden)
    writer.add_block_count(len(numbers.layer_types))
    writer.add_feed_forward_length(numbers.ffn)
    writer.add_head_count(numbers.num_heads)
    writer.add_head_count_kv(numbers.num_key_heads)
    writer.add_key_length(numbers.head_width)
    writer.add_value_length(numbers.head_width)
    writer.add_layer_norm_rms_eps(numbers.epsilon)
    writer.add_vocab_size(numbers.vocab_size)
    rope = numbers.rope(FULL_ATTENTION)
    writer.add_rope_dimension_count(rope.rotary_width(numbers.head_width))
    writer.add_rope_freq_base(rope.theta)
    if rope.type == "linear":
        writer.add_rope_scaling_type(package().RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope.factor)
    if rope.type == "longrope":
        writer.add_rope_scaling_orig_ctx_len(int(rope.original_context))
        writer.add_rope_scaling_attn_factors(rope.attention_factor)
    if numbers.family.has_multipliers:
        writer.add_embedding_scale(numbers.embedding_scale)
        writer.add_attention_scale(numbers.attention_scale)
        writer.add_residual_scale(numbers.residual_scale)
        writer.add_logit_scale(numbers.logit_divisor)
    if numbers.family.window_period:
        writer.add_sliding_window(numbers.window)
        writer.add_rope_freq_base_swa(numbers.rope(SLIDING_ATTENTION).theta)
        for key, cap in _softcaps(numbers).items():
            if cap:
                getattr(writer, SOFTCAP_WRITERS[key])(cap)


def rope_divisors(numbers: Hyperparameters) -> dict[str, np.ndarray]:
    """The divisors of the rotary frequencies that GGUF files store, by tensor, float32
    (rotary_width / 2): one tensor for Llama 3's scaling, two for LongRoPE, none for others.
    """
    rope = numbers.rope(FULL_ATTENTION)
    divisors: dict[str, Any] = {}
    if rope.type == "llama3":
        divisors = {ROPE_DIVISORS: rope.llama3_divisors(numbers.head_width)}
    elif rope.type == "longrope":
        divisors = {LONG_DIVISORS: rope.long_factors, SHORT_DIVISORS: rope.short_factors}
    return {name: np.array(numbers, np.float32) for name, numbers in divisors.items()}


def _softcaps(numbers: Hyperparameters) -> dict[str, float]:
    return {
        families.ATTENTION_CAP: numbers.attention_softcap,
        families.FINAL_CAP: numbers.final_softcap,
    }


def _check_layers(numbers: Hyperparameters) -> None:
    family = numbers.family
    runtime_types = families.periodic_layer_types(len(numbers.layer_types), family.window_period)
    if family.has_window and 0 < numbers.window < numbers.context:
        raise UsageError(
            f"its layers see {numbers.window} of {numbers.context} positions, "
            f"but {family.gguf.architecture} files are run without a window"
        )
    if not family.has_window and list(numbers.layer_types) != runtime_types:
        raise UsageError(
            f"it has layer_types {list(numbers.layer_types[:4])}..., "
            f"but {family.gguf.architecture} files have fixed windows"
        )
    if numbers.activation != family.gguf.activation:
        raise UsageError(
            f"it has the activation {numbers.activation}, "
            f"but {family.gguf.architecture} files are run with {family.gguf.activation}"
        )


def _check_ropes(numbers: Hyperparameters) -> None:
    family: Family = numbers.family
    rope = numbers.rope(FULL_ATTENTION)
    if int(numbers.head_width * rope.turned_share) % 2:
        raise UsageError("it turns an odd number of numbers of each head, which files cannot say")
    if rope.type not in family.gguf.rope_types:
        raise UsageError(
            f"it has rope_type {rope.type}, but {family.gguf.architecture} files can hold only "
            + ", ".join(family.gguf.rope_types)
        )
    if not family.window_period:
        return
    local = numbers.rope(SLIDING_ATTENTION)
    if family.gguf.local_rope_theta is None:
        if local != rope:
            raise UsageError(
                f"its layers with a window turn differently, but {family.gguf.architecture} files "
                "have one rotation for all layers"
            )
    elif local != Rope(local.theta):
        raise UsageError(
            "the rotation of its layers with a window is scaled, but files scale that of the other "
            "layers only"
        )


def _check_attention(numbers: Hyperparameters) -> None:
    family = numbers.family
    runtime_scalar = family.gguf_query_scalar(
        len(numbers.layer_types), numbers.hidden, numbers.num_heads, numbers.head_width
    )
    if numbers.query_scalar != runtime_scalar:
        raise UsageError(
            f"it has query_pre_attn_scalar {numbers.query_scalar:g}, "
            f"but files imply {runtime_scalar}"
        )
    query_width = numbers.num_heads * numbers.head_width
    if family.has_joint_head_norms and query_width != numbers.hidden:
        raise UsageError(
            f"its queries are {query_width} wide, but {family.gguf.architecture} files imply the "
            f"hidden width {numbers.hidden}"
        )
    for key, cap in _softcaps(numbers).items():
        default_cap = family.gguf.softcaps.get(key)
        if cap and key not in family.gguf.softcaps:
            architecture = family.gguf.architecture
            raise UsageError(f"it has {key} {cap:g}, but {architecture} files have none")
        if not cap and default_cap is not None:
            raise UsageError(f"it has no {key}, but files without one are run with {default_cap:g}")
    if numbers.is_bidirectional:
        raise UsageError("it attends to later tokens, but files are run causally")
