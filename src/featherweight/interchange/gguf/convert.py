"""Converts a GGUF file to an ordinary transformers folder: configuration, weights and tokenizer.

`metadata.py` gives the configuration, and the record of the family gives the names of the tensors.
transformers builds an empty model from the configuration, and each tensor of the file must fill
exactly one of its parameters: a tensor that is superfluous, missing or of another shape is an
error. The weights are written in float32, because the product of a block's fp16 scale (11 bits of
mantissa) and a 4-bit code needs up to 15 bits of mantissa. One tensor is in memory at a time.
`tensors.py` undoes the changes that GGUF makes to the rows of q and k and to norms.

Only families that have a record (`models/families/`) can be read. The error for an unknown
architecture says what to try instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...base.errors import BadInput
from ...base.events import Listener, silent
from ...base.files import write_atomic
from ...inference.text.probe import ProbeText
from ...models import families
from ...models.families import Family
from ...models.tensors import require_finite
from ..pretrained import build_skeleton, make_config
from ..shards import LazyTensor, write_checkpoint
from ..tensor_progress import TensorProgress
from ..tokenizer_check import probe_of, write_probe
from .file import GGUFFile
from .metadata import read_settings
from .tensors import (
    LONG_DIVISORS,
    ROPE_DIVISORS,
    SHORT_DIVISORS,
    has_offset,
    permuted_heads,
    restore_rows,
    subtract_offset,
)
from .tokenizer import HINT, build, eos_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

STAGE = "convert"


def convert(path: Path, folder: Path, listener: Listener = silent) -> None:
    """Write the model of the GGUF file at `path` into the existing, empty `folder`.

    `listener` receives an event for each tensor. Raises BadInput for a damaged file, and for an
    architecture, tokenizer or storage type that is not supported.
    """
    file = GGUFFile(path)
    family = _family(file)
    config = _config(file, family)
    tokenizer = build(file)
    tensors = model_tensors(file, family, config)
    config.save_pretrained(folder)
    _generation_config(file, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_probe(folder, _probe(file, folder, tokenizer))
    progress = TensorProgress(STAGE, len(tensors), listener)
    write_checkpoint(folder, [progress.observe(tensor) for tensor in tensors])
    write_atomic(folder / "README.md", _card(file))


def _probe(file: GGUFFile, folder: Path, tokenizer: Any) -> list[ProbeText] | None:
    """The probe of the tokenizer that was saved in `folder`; BadInput when it is read otherwise.

    For some families transformers puts its own splitting rule in place of the saved one.
    """
    try:
        return probe_of(folder, tokenizer)
    except BadInput as error:
        raise BadInput(
            f"{file.path}: transformers cannot cut text as its tokenizer does "
            f"(tokenizer.ggml.pre is {file.values.get('tokenizer.ggml.pre')!r}); {HINT} ({error})"
        ) from error


def _family(file: GGUFFile) -> Family:
    name = file.values.get("general.architecture")
    family = families.find_gguf(name)
    if family is None:
        architectures = (record.gguf.architecture for record in families.FAMILIES)
        names = ", ".join(dict.fromkeys(architectures))
        raise BadInput(
            f"{file.path} has the architecture {name!r}; GGUF files of {names} can be read: {HINT}"
        )
    return family


def _config(file: GGUFFile, family: Family) -> PreTrainedConfig:
    """The transformers configuration that the metadata describe."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    settings = read_settings(file, family)
    architecture = str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family.model_type])
    all_settings = {"model_type": family.model_type, "architectures": [architecture], **settings}
    return make_config(all_settings, file.path)


def model_tensors(file: GGUFFile, family: Family, config: PreTrainedConfig) -> list[LazyTensor]:
    """Every parameter of the model of `config` with the tensor that fills it, in float32; every
    tensor of the file is used exactly once.

    Raises BadInput when a tensor is missing, superfluous or of another shape. Reading one raises
    BadInput when it cannot be decoded or is not finite.
    """
    model = build_skeleton(config, file.path)
    unused_names = set(file.tensors)
    if "llama3" in family.gguf.rope_types:
        unused_names.discard(ROPE_DIVISORS)  # `metadata.py` has put it into the configuration
    if "longrope" in family.gguf.rope_types:
        unused_names -= {SHORT_DIVISORS, LONG_DIVISORS}
    tensors = []
    for name, parameter in model.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        gguf_name = family.gguf_tensor(name)
        if gguf_name not in unused_names:
            raise BadInput(f"{file.path} lacks tensor {gguf_name} (for {name}); fetch it again")
        unused_names.remove(gguf_name)
        shape, stored_shape = tuple(parameter.shape), file.tensors[gguf_name].shape
        if stored_shape != shape:
            raise BadInput(
                f"{file.path}: tensor {gguf_name} is {stored_shape} "
                f"where the metadata asks for {shape}"
            )
        heads = permuted_heads(name, family, config.num_attention_heads, config.num_key_value_heads)
        read = _reader(file, gguf_name, heads, family if has_offset(name, family) else None)
        tensors.append(LazyTensor(name, shape, torch.float32, read))
    if unused_names:
        raise BadInput(
            f"{file.path} holds tensors that {family.model_type} models do not have: "
            f"{', '.join(sorted(unused_names)[:3])}; {HINT}"
        )
    return tensors


def _reader(file: GGUFFile, name: str, heads: int | None, offset_of: Family | None) -> Any:
    """A function that reads the tensor `name` as transformers stores it.

    `heads`: number of heads whose rows GGUF reordered, or None. `offset_of`: the family whose norm
    offset is subtracted, or None.
    """

    def read() -> torch.Tensor:
        values, full_name = file.read(name), f"{file.path}: {name}"
        tensor = torch.from_numpy(values.copy() if heads is None else restore_rows(values, heads))
        require_finite(tensor, full_name)
        if offset_of is not None:
            tensor = torch.from_numpy(subtract_offset(values, offset_of, full_name))
        return tensor

    return read


def _generation_config(file: GGUFFile, config: PreTrainedConfig) -> Any:
    from transformers import GenerationConfig

    eos = eos_token_ids(file)
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=eos[0] if len(eos) == 1 else eos,
        pad_token_id=config.pad_token_id,
    )


def _card(file: GGUFFile) -> str:
    """A README that says where the weights come from, with the licence as cards on the hub state
    it.
    """
    licence = file.values.get("general.license")
    title = str(file.values.get("general.name", "")).splitlines()
    name = title[0] if title else file.path.stem
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
