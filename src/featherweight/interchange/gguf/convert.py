"""A GGUF file turned into an ordinary model folder: configuration, weights and tokenizer, each
accounted for.

The configuration comes from the metadata, tensor names from the gguf package's own map, and every
tensor of the file must end in exactly one parameter of the model that transformers builds from that
configuration: one left over, missing or of another shape is an error. The weights are written in
float32, because that is what a block's scale times its code is in general (a 4-bit file needs 11 +
4 bits of mantissa); one tensor is in memory at a time.

Llama-family files store the rows of q and k with the two halves of each head interleaved; the
inverse permutation puts them back: rows `(head, pair, half)` become `(head, half, pair)`.
Architectures are listed below, not guessed: what is not known exactly is refused with what to try
instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float32

from ...base.errors import BadInput
from ...base.events import Event, Listener, silent
from ...base.files import write_atomic
from ...models.tensors import require_finite
from ..shards import Entry, write_checkpoint
from .file import GGUFFile, package
from .tokenizer import INSTEAD, build, eos_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

STAGE = "convert"
SPECIAL_IDS = {"bos": "bos", "eos": "eos", "pad": "padding"}
# The frequencies' factors of Llama 3, which transformers computes from the configuration.
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class Architecture:
    """What transformers calls a GGUF architecture, and whether its q and k rows are interleaved."""

    model_type: str
    interleaved: bool
    head_dim: bool = True


ARCHITECTURES = {
    "llama": Architecture("llama", interleaved=True),
    "qwen2": Architecture("qwen2", interleaved=False, head_dim=False),
    "qwen3": Architecture("qwen3", interleaved=False),
}


def convert(path: Path, folder: Path, listener: Listener = silent) -> None:
    """Write the model of the GGUF at `path` into the existing, empty `folder`.

    Raises BadInput for a damaged file and for what is not supported (architecture, tokenizer,
    storage type, experts).
    """
    file = GGUFFile(path)
    architecture = _architecture(file)
    config = _config(file, architecture)
    tokenizer = build(file)
    entries = _entries(file, architecture, config)
    progress = _Progress(len(entries), listener)
    write_checkpoint(folder, [progress.counted(entry) for entry in entries])
    config.save_pretrained(folder)
    _generation_config(file, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_atomic(folder / "README.md", _card(file))


def _architecture(file: GGUFFile) -> Architecture:
    name = file.values.get("general.architecture")
    if name not in ARCHITECTURES:
        raise BadInput(
            f"{file.path} has the architecture {name!r}; GGUF files of {', '.join(ARCHITECTURES)} can be read: "
            f"{INSTEAD}"
        )
    return ARCHITECTURES[name]


def _config(file: GGUFFile, architecture: Architecture) -> PreTrainedConfig:
    """The transformers configuration that the metadata describes."""
    from transformers import AutoConfig

    value = _Values(file)
    if value.integer("block_count") > len(file.entries):
        raise value.refused("block_count", f"there are only {len(file.entries)} tensors")
    heads = value.integer("attention.head_count")
    hidden = value.integer("embedding_length")
    head_dim = value.integer("attention.key_length", hidden // heads)
    unsupported = {
        "expert_count": 0,
        "attention.sliding_window": 0,
        "attention.value_length": head_dim,
        "rope.dimension_count": head_dim,
    }
    for key, only in unsupported.items():
        if value.integer(key, only) != only:
            raise value.refused(key, f"only {only} is supported")
    if not architecture.head_dim and head_dim != hidden // heads:
        raise value.refused("attention.key_length", f"only {hidden // heads} is supported")
    settings: dict[str, Any] = {
        "architectures": [_causal(architecture.model_type)],
        "vocab_size": file.entries["token_embd.weight"].shape[0]
        if "token_embd.weight" in file.entries
        else 0,
        "hidden_size": hidden,
        "intermediate_size": value.integer("feed_forward_length"),
        "num_hidden_layers": value.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value.integer("attention.head_count_kv", heads),
        "max_position_embeddings": value.integer("context_length"),
        "rms_norm_eps": value.real("attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope(file, value, head_dim),
        "tie_word_embeddings": "output.weight" not in file.entries,
        "dtype": "float32",
    }
    if architecture.head_dim:
        settings["head_dim"] = head_dim
    if architecture.model_type == "llama":
        settings["attention_bias"] = "blk.0.attn_q.bias" in file.entries
        settings["mlp_bias"] = "blk.0.ffn_gate.bias" in file.entries
    elif architecture.model_type == "qwen3":
        settings["attention_bias"] = "blk.0.attn_q.bias" in file.entries
    ids = {
        f"{name}_token_id": file.values.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in SPECIAL_IDS.items()
    }
    try:
        return AutoConfig.for_model(architecture.model_type, **settings, **ids)
    except Exception as error:  # transformers' own kinds, and they change
        raise BadInput(
            f"{file.path}: the metadata do not describe a model that can be built ({error})"
        ) from error


def _causal(model_type: str) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])


def _rope(file: GGUFFile, value: _Values, head_dim: int) -> dict[str, Any]:
    theta = value.real("rope.freq_base", 10000.0)
    scaling = file.values.get(value.full("rope.scaling.type"), "none")
    if scaling == "linear":
        return {
            "rope_type": "linear",
            "rope_theta": theta,
            "factor": value.real("rope.scaling.factor"),
        }
    if scaling != "none":
        raise value.refused("rope.scaling.type", "only none and linear are supported")
    if ROPE_FACTORS in file.entries:
        return _llama3_rope(file, theta, head_dim)
    return {"rope_type": "default", "rope_theta": theta}


def _llama3_rope(file: GGUFFile, theta: float, head_dim: int) -> dict[str, Any]:
    """The parameters of Llama 3's frequency scaling, recovered from the stored factors and checked
    on all of them.
    """
    stored = file.read(ROPE_FACTORS)
    factor = max(float(stored.max()), 1.0)
    low, high, old = 1.0, 4.0, 8192
    wavelength = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((old / wavelength - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-3):
        raise BadInput(f"{file.path}: {ROPE_FACTORS} is not Llama 3's scaling; {INSTEAD}")
    return {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": old,
    }


def _entries(file: GGUFFile, architecture: Architecture, config: PreTrainedConfig) -> list[Entry]:
    """Every parameter of the model with the tensor that fills it; every tensor of the file is used
    exactly once.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise BadInput(
            f"{file.path}: the metadata do not describe a model that can be built ({error})"
        ) from error
    gguf = package()
    kind = next(
        key
        for key, name in gguf.MODEL_ARCH_NAMES.items()
        if name == file.values["general.architecture"]
    )
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    left = set(file.entries) - {ROPE_FACTORS}
    entries = []
    for name, parameter in model.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored not in left:
            raise BadInput(f"{file.path} lacks tensor {stored} (for {name}); fetch it again")
        left.remove(stored)
        shape = tuple(parameter.shape)
        if file.entries[stored].shape != shape:
            found = file.entries[stored].shape
            raise BadInput(
                f"{file.path}: tensor {stored} is {found} where the metadata asks for {shape}"
            )
        heads = interleaved_heads(name, config) if architecture.interleaved else None
        entries.append(Entry(name, shape, torch.float32, _reader(file, stored, heads)))
    if left:
        raise BadInput(
            f"{file.path} holds tensors that {architecture.model_type} models do not have: "
            f"{', '.join(sorted(left)[:3])}; {INSTEAD}"
        )
    return entries


def interleaved_heads(name: str, config: PreTrainedConfig) -> int | None:
    """Heads whose rows `name` holds interleaved; None for all but q and k."""
    if ".q_proj." in name:
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if ".k_proj." in name else None


def _reader(file: GGUFFile, stored: str, heads: int | None) -> Any:
    def read() -> torch.Tensor:
        values = file.read(stored)
        tensor = torch.from_numpy(values.copy() if heads is None else halves_apart(values, heads))
        require_finite(tensor, f"{file.path}: {stored}")
        return tensor

    return read


def halves_apart(
    rows: Float32[np.ndarray, "rows ..."], heads: int
) -> Float32[np.ndarray, "rows ..."]:
    """Rows `(head, pair, half)`, as llama.cpp rotates them, to `(head, half, pair)`, as
    transformers does.
    """
    return np.ascontiguousarray(
        rows.reshape(heads, len(rows) // heads // 2, 2, -1).swapaxes(1, 2)
    ).reshape(rows.shape)


def _generation_config(file: GGUFFile, config: PreTrainedConfig) -> Any:
    from transformers import GenerationConfig

    eos = eos_token_ids(file)
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=eos[0] if len(eos) == 1 else eos,
        pad_token_id=config.pad_token_id,
    )


def _card(file: GGUFFile) -> str:
    """A README that says where the weights come from, with the licence as the hub's cards state it."""
    licence = file.values.get("general.license")
    name = str(file.values.get("general.name", file.path.stem)).splitlines()[0]
    head = (
        f"---\nlicense: {licence}\n---\n"
        if isinstance(licence, str) and licence.isprintable()
        else ""
    )
    types = sorted(set(file.type_names().values()))
    return (
        f"{head}# {name}\n\nConverted by featherweight from `{file.path.name}`. "
        f"The weights are the values stored there ({', '.join(types)}), written in float32.\n"
    )


class _Values:
    """Metadata of the file's architecture, with the types the configuration needs."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file

    def full(self, key: str) -> str:
        return f"{self.file.values['general.architecture']}.{key}"

    def refused(self, key: str, why: str) -> BadInput:
        value = self.file.values.get(self.full(key))
        return BadInput(f"{self.file.path}: {self.full(key)} is {value!r}: {why}; {INSTEAD}")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.file.values.get(self.full(key), default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise self.refused(key, "a whole number is needed")
        if value == 0 and default is None:
            raise self.refused(key, "a positive number is needed")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """The shortest decimal that the stored float32 stands for: 1e-05, not
        9.999999747378752e-06.
        """
        value = self.file.values.get(self.full(key), default)
        if not isinstance(value, float) or not 0 < value < math.inf:
            raise self.refused(key, "a positive number is needed")
        return float(str(np.float32(value)))


class _Progress:
    """Reports a tensor when it is read to be written."""

    def __init__(self, total: int, listener: Listener) -> None:
        self.total, self.listener, self.done = total, listener, 0
        listener(Event(STAGE, 0, total))

    def counted(self, entry: Entry) -> Entry:
        def read() -> torch.Tensor:
            tensor = entry.read()
            self.done += 1
            self.listener(Event(STAGE, self.done, self.total, message=entry.name))
            return tensor

        return Entry(entry.name, entry.shape, entry.dtype, read)
