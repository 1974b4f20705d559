"""Translates the metadata of a GGUF file to settings of a transformers configuration.

Only the keys that the record of the family lists are read. A key that asks for a computation which
transformers' model does not do raises BadInput, because the model would load and give wrong
answers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...base.errors import BadInput
from ...models import families
from ...models.families import FULL_ATTENTION, SLIDING_ATTENTION, Family, Rope
from .file import GGUFFile
from .tensors import LONG_DIVISORS, ROPE_DIVISORS, SHORT_DIVISORS
from .tokenizer import HINT

TABLE, HEAD = f"{families.EMBEDDING.gguf}.weight", f"{families.HEAD.gguf}.weight"
SPECIAL_IDS = {"bos": "bos", "eos": "eos", "pad": "padding"}
SOFTCAP_KEYS = {
    families.ATTENTION_CAP: "attn_logit_softcapping",
    families.FINAL_CAP: "final_logit_softcapping",
}
# Granite's factors, in configurations and in files. No other family that has a record uses them.
MULTIPLIER_KEYS = {
    "embedding_multiplier": "embedding_scale",
    "attention_multiplier": "attention.scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
# Keys with which other families scale activations. No family that has a record here uses them.
FOREIGN_KEYS = ("attention.clamp_kqv",)
FACTOR, OLD_FACTOR = "rope.scaling.factor", "rope.scale_linear"
# Settings of YaRN that llama.cpp does not read for our families, and the values that it takes.
FIXED_YARN = {
    "yarn_ext_factor": 1.0,
    "yarn_attn_factor": 1.0,
    "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0,
    "yarn_log_multiplier": 0.0,
}


class ArchitectureValues:
    """The metadata whose keys begin with the name of the architecture, such as
    `llama.block_count`. The methods check the type of a value and raise BadInput for a wrong one.
    """

    def __init__(self, file: GGUFFile) -> None:
        self._file = file

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, unchecked."""
        return self._file.values.get(self._full_key(key), default)

    def refusal(self, key: str, reason: str) -> BadInput:
        """The error that names `key` and its value."""
        return BadInput(
            f"{self._file.path}: {self._full_key(key)} is {self.get(key)!r}: {reason}; {HINT}"
        )

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number below 2^31. Without a `default` the key must exist and the number must be
        positive.
        """
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise self.refusal(key, "a whole number is needed")
        if value == 0 and default is None:
            raise self.refusal(key, "a positive number is needed")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """The shortest decimal number that rounds to the stored float32: 1e-05, not
        9.999999747378752e-06.
        """
        value = self.get(key, default)
        if not isinstance(value, float) or not 0 < value < math.inf:
            raise self.refusal(key, "a positive number is needed")
        return float(str(np.float32(value)))

    def _full_key(self, key: str) -> str:
        return f"{self._file.values['general.architecture']}.{key}"


def read_settings(file: GGUFFile, family: Family) -> dict[str, Any]:
    """The arguments of the transformers configuration that the metadata describe.

    Raises BadInput, which names the key, for a value that is missing, impossible or not supported.
    """
    values = ArchitectureValues(file)
    if values.integer("block_count") > len(file.tensors):
        raise values.refusal("block_count", f"there are only {len(file.tensors)} tensors")
    num_layers, hidden = values.integer("block_count"), values.integer("embedding_length")
    heads = values.integer("attention.head_count")
    width = values.integer("attention.key_length", hidden // heads)
    _check_supported(values, family, width)
    if not family.has_head_dim and width != hidden // heads:
        raise values.refusal("attention.key_length", f"only {hidden // heads} is supported")
    settings: dict[str, Any] = {
        "vocab_size": file.tensors[TABLE].shape[0] if TABLE in file.tensors else 0,
        "hidden_size": hidden,
        "intermediate_size": values.integer("feed_forward_length"),
        "num_hidden_layers": num_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": values.integer("attention.head_count_kv", heads),
        "max_position_embeddings": values.integer("context_length"),
        "rms_norm_eps": values.real("attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope_parameters(file, values, family, width),
        "tie_word_embeddings": family.gguf.is_tied or HEAD not in file.tensors,
        "dtype": "float32",
    }
    if family.has_head_dim:
        settings["head_dim"] = width
    for key, matrix in family.bias_flags.items():
        settings[key] = f"blk.0.{family.matrices[matrix].gguf}.bias" in file.tensors
    if family.window_period:
        settings |= _window_settings(values, family, num_layers)
    if family.has_window:
        settings["sliding_window"] = values.integer("attention.sliding_window", 0) or None
    if settings["rope_parameters"].get("rope_type") == "longrope":
        settings["original_max_position_embeddings"] = _original_context(values)
    if family.has_query_scalar:
        scalar = family.gguf_query_scalar(num_layers, hidden, heads, width)
        settings["query_pre_attn_scalar"] = scalar
    if family.has_softcaps:
        settings |= _softcaps(values, family)
    if family.has_multipliers:
        settings |= _multipliers(values, width)
    return settings | {
        f"{name}_token_id": file.values.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in SPECIAL_IDS.items()
    }


def _check_supported(values: ArchitectureValues, family: Family, width: int) -> None:
    """Raise BadInput for a value that asks for a computation which models of this family do not
    do.
    """
    supported_values = {
        "expert_count": 0,
        "attention.value_length": width,
        "rope.dimension_count": width,
        "attention.key_length_swa": width,
        "attention.value_length_swa": width,
        "rope.dimension_count_swa": width,
    }
    if family.has_partial_rope:
        # Runtimes turn pairs of numbers.
        dims = values.integer("rope.dimension_count", width)
        supported_values["rope.dimension_count"] = min(dims // 2 * 2, width)
    if not family.window_period and not family.has_window:
        window = values.integer("attention.sliding_window", 0)
        # A window that holds the whole context hides no position.
        is_complete = window >= values.integer("context_length")
        supported_values["attention.sliding_window"] = window if is_complete else 0
    for key, value in supported_values.items():
        if values.integer(key, value) != value:
            raise values.refusal(key, f"only {value} is supported")
    foreign_keys = () if family.has_multipliers else MULTIPLIER_KEYS.values()
    for key in (*FOREIGN_KEYS, *foreign_keys):
        if values.get(key) is not None:
            raise values.refusal(key, f"{family.gguf.architecture} models have no such number")
    # Runtimes take this key as a switch of the rotary positions of such models.
    if family.has_multipliers and values.get("rope.scaling.finetuned", True) is not True:
        raise values.refusal("rope.scaling.finetuned", "only True is supported")


def _window_settings(values: ArchitectureValues, family: Family, num_layers: int) -> dict[str, Any]:
    key = "attention.sliding_window_pattern"
    period = values.integer(key, family.window_period)
    if period == 0:
        raise values.refusal(key, "a positive number is needed")
    return {
        "sliding_window": values.integer("attention.sliding_window"),
        "layer_types": families.periodic_layer_types(num_layers, period),
    }


def _softcaps(values: ArchitectureValues, family: Family) -> dict[str, float | None]:
    caps: dict[str, float | None] = {}
    for setting, key in SOFTCAP_KEYS.items():
        default_cap = family.gguf.softcaps.get(setting)
        is_stored = setting in family.gguf.softcaps and values.get(key) is not None
        caps[setting] = values.real(key) if is_stored else default_cap
    return caps


def _multipliers(values: ArchitectureValues, width: int) -> dict[str, float]:
    """Granite's factors; those that a file lacks are the ones that runtimes use then."""
    defaults = {"attention.scale": width**-0.5, "logit_scale": None}
    return {
        setting: values.real(key, defaults.get(key, 1.0))
        for setting, key in MULTIPLIER_KEYS.items()
    }


def _rope_parameters(
    file: GGUFFile, values: ArchitectureValues, family: Family, width: int
) -> dict[str, Any]:
    theta, rules = values.real("rope.freq_base", 10000.0), family.gguf
    parameters = _scaling(file, values, family, theta, width)
    if not family.window_period:
        return parameters
    key = "rope.freq_base_swa"
    local_theta = values.real(key, rules.local_rope_theta or theta)
    if rules.local_rope_theta is None:
        if local_theta != theta:
            raise values.refusal(key, f"only {theta}, that of the other layers, is supported")
        return parameters
    local = {"rope_type": "default", "rope_theta": local_theta}
    return {FULL_ATTENTION: parameters, SLIDING_ATTENTION: local}


def _scaling(
    file: GGUFFile, values: ArchitectureValues, family: Family, theta: float, width: int
) -> dict[str, Any]:
    """The rotary settings of the layers that see all positions, as llama.cpp reads them: without a
    type a factor is linear, its older name counts where the newer one is missing, and 0 is none.
    """
    if "longrope" in family.gguf.rope_types:
        return _longrope_scaling(file, values, theta, width)
    key = _factor_key(values)
    factor = None if values.get(key) in (None, 0.0) else values.real(key)
    scaling = values.get("rope.scaling.type", "linear")
    has_divisors = "llama3" in family.gguf.rope_types and ROPE_DIVISORS in file.tensors
    if scaling == "none" or (scaling == "linear" and factor is None):
        if has_divisors:
            return _llama3_scaling(file, theta, width)
        return {"rope_type": "default", "rope_theta": theta}
    if has_divisors:
        reason = f"only none is supported with {ROPE_DIVISORS}"
        raise values.refusal("rope.scaling.type", reason)
    if scaling == "linear":
        return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    if scaling == "yarn" and not family.window_period:
        return _yarn_scaling(values, theta)
    supported_types = "none and linear" if family.window_period else "none, linear and yarn"
    raise values.refusal("rope.scaling.type", f"only {supported_types} are supported")


def _factor_key(values: ArchitectureValues) -> str:
    return FACTOR if values.get(FACTOR) is not None else OLD_FACTOR


def _yarn_scaling(values: ArchitectureValues, theta: float) -> dict[str, Any]:
    """The parameters of YaRN (arXiv:2309.00071), which llama.cpp and transformers compute alike.

    Both multiply attention by 1 + ln(factor) / 10. GGUF stores another factor on top of that,
    transformers the product.
    """
    factor = values.real(_factor_key(values))
    for name, value in FIXED_YARN.items():
        if values.get(f"rope.scaling.{name}", value) != value:
            raise values.refusal(f"rope.scaling.{name}", f"only {value} is supported")
    parameters: dict[str, Any] = {
        "rope_type": "yarn",
        "rope_theta": theta,
        "factor": factor,
        "original_max_position_embeddings": _original_context(values),
    }
    attention = values.real("rope.scaling.attn_factor", 1.0)
    if attention != 1.0:
        parameters["attention_factor"] = attention * (1 + math.log(factor) / 10)
    return parameters


def _original_context(values: ArchitectureValues) -> int:
    context = values.integer("rope.scaling.original_context_length", 0)
    return context or values.integer("context_length")


def _longrope_scaling(
    file: GGUFFile, values: ArchitectureValues, theta: float, width: int
) -> dict[str, Any]:
    """The parameters of LongRoPE (arXiv:2402.13753) when the file holds its divisors, else those of
    plain rotary positions. Both may turn only part of each head.
    """
    if values.get(_factor_key(values)) not in (None, 0.0, 1.0):
        raise values.refusal(_factor_key(values), "only 1.0 is supported")
    if values.get("rope.scaling.type", "none") not in ("none", "linear", "longrope"):
        raise values.refusal("rope.scaling.type", "only none and longrope are supported")
    dims = values.integer("rope.dimension_count", width)
    parameters: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": theta,
        # The next larger number where the quotient was rounded down: transformers cuts off digits.
        "partial_rotary_factor": next(
            share
            for share in (dims / width, math.nextafter(dims / width, 2))
            if int(width * share) == dims
        ),
    }
    attention = values.real("rope.scaling.attn_factor", 1.0)
    if not {SHORT_DIVISORS, LONG_DIVISORS} & set(file.tensors):
        if attention != 1:
            raise values.refusal("rope.scaling.attn_factor", f"only 1.0 without {SHORT_DIVISORS}")
        return parameters
    for key, name in (("short_factor", SHORT_DIVISORS), ("long_factor", LONG_DIVISORS)):
        if name not in file.tensors or file.tensors[name].shape != (dims // 2,):
            raise BadInput(f"{file.path} lacks tensor {name} of {dims // 2} numbers; {HINT}")
        parameters[key] = [float(str(number)) for number in file.read(name)]
    context = _original_context(values)
    default_attention = families.longrope_attention(
        values.integer("context_length") / context, context
    )
    if np.float32(default_attention) != np.float32(attention):
        parameters["attention_factor"] = attention
    return parameters | {"rope_type": "longrope", "original_max_position_embeddings": context}


def _llama3_scaling(file: GGUFFile, theta: float, width: int) -> dict[str, Any]:
    """The parameters of Llama 3's frequency scaling.

    A GGUF file holds only the divisors. The largest one is the factor, and the other parameters are
    assumed to be those of Llama 3; the divisors computed from them must equal all stored ones.
    """
    divisors = file.read(ROPE_DIVISORS)
    rope = Rope(
        theta,
        "llama3",
        factor=max(float(divisors.max()), 1.0),
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_context=8192,
    )
    llama3_divisors = rope.llama3_divisors(width)
    has_shape = divisors.shape == llama3_divisors.shape
    if not has_shape or not np.allclose(divisors, llama3_divisors, rtol=1e-3):
        raise BadInput(f"{file.path}: {ROPE_DIVISORS} is not Llama 3's scaling; {HINT}")
    return {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": rope.factor,
        "low_freq_factor": rope.low_freq_factor,
        "high_freq_factor": rope.high_freq_factor,
        "original_max_position_embeddings": 8192,
    }
