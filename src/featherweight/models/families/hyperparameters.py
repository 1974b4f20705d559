"""The hyperparameters of a model, read from its config.json without transformers and checked.

A configuration is untrusted: an impossible number raises BadInput. For missing keys the default
values of transformers are used (`Family.defaults`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.errors import BadInput, Unsupported
from .base import ATTENTION_CAP, FINAL_CAP, FULL_ATTENTION, SLIDING_ATTENTION, Family
from .rope import Rope, longrope_attention

# The factors of embeddings, attention scores and additions to the residual; the divisor of logits.
MULTIPLIERS = (
    "embedding_multiplier",
    "attention_multiplier",
    "residual_multiplier",
    "logits_scaling",
)
LARGEST_NUMBER = 1e30  # limit of every number in a configuration; well below the largest float32


@dataclass(frozen=True)
class Hyperparameters:
    """The hyperparameters of one model of `family`.

    `config`: the content of config.json with the family's defaults. `hidden`, `ffn`, `head_width`:
    the widths of the residual stream, of the feed-forward network and of one head. `num_key_heads`:
    the number of key and value heads. `context`: the largest number of positions. `layer_types`:
    FULL_ATTENTION or SLIDING_ATTENTION for each layer; `window`: the number of positions that a
    layer of the second kind attends to. `epsilon`: of the norms. `attention_scale`: the factor of
    attention scores, `query_scalar` ** -0.5 in most families. `residual_scale`: the factor of what
    attention and the feed-forward network add to the residual. Logits are divided by
    `logit_divisor`. A soft cap of 0 means no cap.
    """

    family: Family
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
    query_scalar: float
    attention_scale: float
    activation: str
    attention_softcap: float
    final_softcap: float
    embedding_scale: float
    residual_scale: float
    logit_divisor: float
    is_tied: bool
    is_bidirectional: bool

    def rope(self, layer_type: str) -> Rope:
        """The rotary settings of the layers of type `layer_type`.

        Raises BadInput for impossible numbers.
        """
        settings, default_theta = self._rope_settings(layer_type)
        theta = _number(settings, "rope_theta", default_theta)
        if theta < 1:
            raise BadInput(f"config.json says rope_theta = {theta}")
        rope_type = str(settings.get("rope_type", settings.get("type", "default")))
        if rope_type in self.family.longrope_names:
            rope_type = "longrope"
        numbers: dict[str, Any] = {}
        if rope_type in ("linear", "llama3"):
            numbers["factor"] = _positive(settings, "factor", None)
        if rope_type == "llama3":
            for key in ("low_freq_factor", "high_freq_factor"):
                numbers[key] = _number(settings, key, None)
        if rope_type in ("llama3", "longrope"):
            key = "original_max_position_embeddings"
            is_outside = self.config.get(key) is not None and not self._has_local_rope
            place = self.config if is_outside else settings
            numbers["original_context"] = _positive(place, key, self.context)
        share = self.config.get("partial_rotary_factor")
        share = _number(settings, "partial_rotary_factor", 1.0 if share is None else share)
        if share > 1 or (share != 1 and not self.family.has_partial_rope):
            raise Unsupported(
                f"partial_rotary_factor {share:g}: heads of {self.family.model_type} models turn "
                "as a whole"
            )
        if rope_type == "longrope":
            numbers |= self._longrope(settings, int(self.head_width * share), **numbers)
        return Rope(theta, rope_type, turned_share=share, **numbers)

    def _longrope(
        self, settings: Mapping[str, Any], dims: int, original_context: float
    ) -> dict[str, Any]:
        """LongRoPE's divisors of the frequencies of `dims` numbers, and its attention factor."""
        if original_context < 2:
            raise BadInput(
                f"config.json says original_max_position_embeddings = {original_context:g}"
            )
        factor = _positive(settings, "factor", self.context / original_context)
        default_attention = longrope_attention(factor, original_context)
        return {
            "short_factors": _numbers(settings, "short_factor", (dims + 1) // 2),
            "long_factors": _numbers(settings, "long_factor", (dims + 1) // 2),
            "attention_factor": _positive(settings, "attention_factor", default_attention),
        }

    def _rope_settings(self, layer_type: str) -> tuple[Mapping[str, Any], Any]:
        """(the rotary settings of the layers of type `layer_type`, the base when they name none).

        The rules are those of transformers: `rope_scaling` counts before `rope_parameters`. Where
        each kind of layer has a base of its own, it changes the layers with full attention only.
        """
        scaling = _mapping(self.config, "rope_scaling")
        parameters = _mapping(self.config, "rope_parameters")
        own = parameters.get(layer_type)
        if not self._has_local_rope:
            if isinstance(own, Mapping) and not scaling:
                raise BadInput(
                    f"config.json has rotary settings for {layer_type}, but models of type "
                    f"{self.family.model_type} have the same ones in all layers"
                )
            return scaling or parameters, self.config["rope_theta"]
        settings = own if isinstance(own, Mapping) else {}
        if layer_type == FULL_ATTENTION:
            return {**settings, **scaling}, self.config["rope_theta"]
        return settings, self.config["rope_local_base_freq"]

    @property
    def _has_local_rope(self) -> bool:
        return "rope_local_base_freq" in self.family.defaults


def read_hyperparameters(config: Mapping[str, Any], family: Family) -> Hyperparameters:
    """The hyperparameters in `config`, the content of a config.json of `family`.

    Raises BadInput for impossible numbers, Unsupported for layers of other kinds than
    FULL_ATTENTION and SLIDING_ATTENTION.
    """
    config = {**family.defaults, **config}
    hidden, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
    width = _count(config, "head_dim", hidden // heads)
    layer_types = _layer_types(config, _count(config, "num_hidden_layers"), family)
    scalar = _positive(config, "query_pre_attn_scalar", 256.0) if family.has_query_scalar else width
    embedding_scale = float(np.float32(math.sqrt(hidden))) if family.scales_embedding else 1.0
    multipliers = [embedding_scale, scalar**-0.5, 1.0, 1.0]
    if family.has_multipliers:
        multipliers = [_positive(config, key, 1.0) for key in MULTIPLIERS]
    embedding_scale, attention_scale, residual_scale, logit_divisor = multipliers
    caps = dict.fromkeys((ATTENTION_CAP, FINAL_CAP), 0.0)
    if family.has_softcaps:
        caps = {key: _number(config, key, 0.0) for key in caps}
    activation = config.get("hidden_activation") or config.get("hidden_act")
    return Hyperparameters(
        family=family,
        config=config,
        hidden=hidden,
        ffn=_count(config, "intermediate_size"),
        vocab_size=_count(config, "vocab_size"),
        num_heads=heads,
        num_key_heads=_count(config, "num_key_value_heads", heads),
        head_width=width,
        context=_count(config, "max_position_embeddings", 8192),
        layer_types=layer_types,
        window=_count(config, "sliding_window") if SLIDING_ATTENTION in layer_types else 0,
        epsilon=_number(config, "rms_norm_eps", 1e-6),
        query_scalar=float(scalar),
        attention_scale=attention_scale,
        activation=str(activation or family.gguf.activation),
        attention_softcap=caps[ATTENTION_CAP],
        final_softcap=caps[FINAL_CAP],
        embedding_scale=embedding_scale,
        residual_scale=residual_scale,
        logit_divisor=logit_divisor,
        is_tied=bool(config["tie_word_embeddings"]),
        is_bidirectional=bool(config.get("use_bidirectional_attention")),
    )


def periodic_layer_types(num_layers: int, period: int) -> list[str]:
    """FULL_ATTENTION for each `period`-th layer (all of them when `period` is 0), and
    SLIDING_ATTENTION for the others.
    """
    if period == 0:
        return [FULL_ATTENTION] * num_layers
    is_full = [(index + 1) % period == 0 for index in range(num_layers)]
    return [FULL_ATTENTION if full else SLIDING_ATTENTION for full in is_full]


def _layer_types(config: Mapping[str, Any], num_layers: int, family: Family) -> tuple[str, ...]:
    types = config.get("layer_types")
    if family.has_window:
        kind = FULL_ATTENTION if config["sliding_window"] is None else SLIDING_ATTENTION
        if types not in (None, [kind] * num_layers):
            raise Unsupported(
                f"layer_types that contradict sliding_window: all layers of a {family.model_type} "
                "model are alike"
            )
        types = [kind] * num_layers
    if types is None and family.window_period:
        period = _count(config, "sliding_window_pattern", family.window_period)
        types = periodic_layer_types(num_layers, period)
    elif types is None and config.get("use_sliding_window"):
        first = _count(config, "max_window_layers", 28)
        num_full = min(first, num_layers)
        types = [FULL_ATTENTION] * num_full + [SLIDING_ATTENTION] * (num_layers - num_full)
    elif types is None:
        types = periodic_layer_types(num_layers, 0)
    if (
        not isinstance(types, list)
        or len(types) != num_layers
        or any(name not in (FULL_ATTENTION, SLIDING_ATTENTION) for name in types)
    ):
        raise Unsupported("layers of other kinds than full and sliding attention")
    return tuple(types)


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
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value < LARGEST_NUMBER
    ):
        raise BadInput(f"config.json says {key} = {str(value)[:80]!r}")
    return float(value)


def _positive(config: Mapping[str, Any], key: str, default: Any) -> float:
    number = _number(config, key, default)
    if number == 0:
        raise BadInput(f"config.json says {key} = 0")
    return number


def _numbers(config: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    numbers = config.get(key)
    if not isinstance(numbers, list) or len(numbers) != count:
        raise BadInput(f"config.json has no list of {count} numbers {key}")
    return tuple(_positive({key: number}, key, None) for number in numbers)
