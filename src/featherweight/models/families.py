"""What the families that the native engine runs compute, read from their config.json without
transformers.

Llama (and SmolLM), Qwen 2 and 3, Gemma 2 and 3. A family is a handful of facts: where its norms
stand, whether heads are normalised, which layers look back only so far, how positions turn.
Whatever a configuration asks beyond these facts is `Unsupported`, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.errors import BadInput, Unsupported

FULL, SLIDING = "full_attention", "sliding_attention"
LARGEST = 1e30  # of any number of a configuration: far inside float32
BEFORE = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
AROUND = {
    "attention_norm": "input_layernorm",
    "after_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "after_ffn_norm": "post_feedforward_layernorm",
}
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu_squared",
}
# model_type -> norms, added to their weights, whether query and key heads are normalised.
KNOWN: dict[str, tuple[dict[str, str], float, bool]] = {
    "llama": (BEFORE, 0.0, False),
    "qwen2": (BEFORE, 0.0, False),
    "qwen3": (BEFORE, 0.0, True),
    "gemma2": (AROUND, 1.0, False),
    "gemma3_text": (AROUND, 1.0, True),
}


@dataclass(frozen=True)
class Family:
    """The facts of one model."""

    config: Mapping[str, Any]
    hidden: int
    ffn: int
    vocab_size: int
    num_heads: int
    num_key_heads: int
    head_width: int
    context: int
    layer_types: tuple[str, ...]
    window: int
    epsilon: float
    attention_scale: float
    activation: str
    attention_softcap: float
    final_softcap: float
    embedding_scale: float
    tied: bool
    norms: dict[str, str]
    norm_offset: float
    head_norms: bool

    def frequencies(self, kind: str) -> NDArray[np.float32]:
        """(head_width / 2) rotary frequencies of layers of `kind`, float32."""
        rope = _mapping(self.config, "rope_parameters")
        if isinstance(rope.get(kind), Mapping):
            rope = rope[kind]
        elif self.config["model_type"] == "gemma3_text" and kind == SLIDING:
            rope = {"rope_theta": self.config.get("rope_local_base_freq", 10_000.0)}
        scaling = {**_mapping(self.config, "rope_scaling"), **rope} if kind == FULL else dict(rope)
        theta = _number(scaling, "rope_theta", self.config.get("rope_theta", 10_000.0))
        if theta < 1:
            raise BadInput(f"config.json says rope_theta = {theta}")
        if _number(scaling, "partial_rotary_factor", 1.0) != 1.0:
            raise Unsupported(
                "only part of each head turns with its position, which the native engine does not "
                "do"
            )
        exponents = np.arange(0, self.head_width, 2, dtype=np.int64).astype(
            np.float32
        ) / np.float32(self.head_width)
        plain = (1.0 / np.power(np.float32(theta), exponents)).astype(np.float32)
        return _scaled(plain, scaling)


def of(config: Mapping[str, Any]) -> Family:
    """The family of a config.json.

    Raises Unsupported for others, BadInput for numbers that no model has.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in KNOWN:
        raise Unsupported(
            f"models of type {kind!r} run on the PyTorch engine; the native one runs "
            f"{', '.join(KNOWN)}"
        )
    norms, offset, head_norms = KNOWN[kind]
    gemma = kind.startswith("gemma")
    hidden, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
    width = _count(config, "head_dim", hidden // heads)
    layers = _count(config, "num_hidden_layers")
    activation = str(
        config.get("hidden_activation") or config.get("hidden_act") or "gelu_pytorch_tanh"
    )
    if activation not in ACTIVATIONS:
        raise Unsupported(f"the activation {activation!r} is not one that the native engine knows")
    if config.get("use_bidirectional_attention"):
        raise Unsupported("attention to later tokens is not what the native engine does")
    types = _layer_types(config, layers, kind)
    scalar = _number(config, "query_pre_attn_scalar", 256.0) if gemma else float(width)
    if scalar == 0:
        raise BadInput("config.json says query_pre_attn_scalar = 0")
    return Family(
        config=config,
        hidden=hidden,
        ffn=_count(config, "intermediate_size"),
        vocab_size=_count(config, "vocab_size"),
        num_heads=heads,
        num_key_heads=_count(config, "num_key_value_heads", heads),
        head_width=width,
        context=_count(config, "max_position_embeddings", 8192),
        layer_types=types,
        window=_count(config, "sliding_window") if SLIDING in types else 0,
        epsilon=_number(config, "rms_norm_eps", 1e-6),
        attention_scale=scalar**-0.5,
        activation=ACTIVATIONS[activation],
        attention_softcap=_number(config, "attn_logit_softcapping", 0.0) if gemma else 0.0,
        final_softcap=_number(config, "final_logit_softcapping", 0.0) if gemma else 0.0,
        embedding_scale=float(np.float32(math.sqrt(hidden))) if gemma else 1.0,
        tied=bool(config.get("tie_word_embeddings", gemma)),
        norms=norms,
        norm_offset=offset,
        head_norms=head_norms,
    )


def _layer_types(config: Mapping[str, Any], layers: int, kind: str) -> tuple[str, ...]:
    given = config.get("layer_types")
    if given is None:
        if kind in ("gemma2", "gemma3_text"):
            every = _count(config, "sliding_window_pattern", 2 if kind == "gemma2" else 6)
            given = [FULL if (index + 1) % every == 0 else SLIDING for index in range(layers)]
        elif config.get("use_sliding_window"):
            first = _count(config, "max_window_layers", 28)
            given = [SLIDING if index >= first else FULL for index in range(layers)]
        else:
            given = [FULL] * layers
    if (
        not isinstance(given, list)
        or len(given) != layers
        or any(kind not in (FULL, SLIDING) for kind in given)
    ):
        raise Unsupported("layers of other kinds than full and sliding attention")
    return tuple(given)


def _scaled(plain: NDArray[np.float32], scaling: Mapping[str, Any]) -> NDArray[np.float32]:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return plain
    if kind == "linear":
        return (plain / np.float32(_number(scaling, "factor", 1.0))).astype(np.float32)
    if kind != "llama3":
        raise Unsupported(f"rotary positions of type {kind!r} run on the PyTorch engine")
    # Llama 3.1 (arXiv:2407.21783): long waves are slowed by `factor`, short ones kept, those
    # between interpolated.
    factor, low, high = (
        _number(scaling, key, 1.0) for key in ("factor", "low_freq_factor", "high_freq_factor")
    )
    original = _number(scaling, "original_max_position_embeddings", 8192)
    wavelength = (2 * math.pi / plain).astype(np.float32)
    share = (original / wavelength - low) / (high - low)
    between = (1 - share) * plain / factor + share * plain
    scaled = np.where(wavelength > original / low, plain / factor, plain)
    middle = (wavelength >= original / high) & (wavelength <= original / low)
    return np.where(middle, between, scaled).astype(np.float32)


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise BadInput(f"config.json says {key} = {str(value)[:80]!r}")
    return value or {}


def _count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or not 1 <= value < 1 << 24:
        raise BadInput(f"config.json says {key} = {str(value)[:80]!r}")
    return value


def _number(config: Mapping[str, Any], key: str, default: Any) -> float:
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < LARGEST:
        raise BadInput(f"config.json says {key} = {str(value)[:80]!r}")
    return float(value)
