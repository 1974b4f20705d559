"""Packed model folders: transformers folders that store each compressed matrix as the tensors of
its format.

`save` writes a compressed model that is in memory. `assemble` writes the result of a streamed run:
it copies the compressed matrices from part files and every other tensor from the source folder, one
tensor at a time. `load` reads a folder that either of them wrote. The folder holds
`model.safetensors` (or shards with an index), `config.json` with the description of
`description.py` and the SHA-256 of each weights file, byte-for-byte copies of the source's
tokenizer and generation files, and a probe of the tokenizer. The bytes of weights and config depend
on the model alone: they contain no times and nothing of the machine, and keys are sorted.

For each compressed matrix X the file holds the tensors of its format (`X.codes`, `X.scale`, ...),
the sign bits of its rotations, and an empty `X.weight` in the model's dtype (`quantization/layers`
says why).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...base.errors import BadInput, UsageError
from ...base.files import write_atomic
from ...models.config import CONFIG, PACKED
from ...models.tensors import TensorFolder
from ...quantization.layers import compressed_layers
from ...quantization.layouts.description import StoredMatrix
from ..atomic import atomic_path
from ..pretrained import load_pretrained
from ..shards import LIMIT_BYTES, LazyTensor, write_checkpoint
from ..source import Source
from ..tokenizer_check import probe_of, write_probe
from . import description as descriptions
from .description import Description
from .verify import check_stored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Patterns of the source's files that are copied byte for byte.
COMPANIONS = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "preprocessor_config.json",
    "LICENSE*",
    "NOTICE*",
)
Content = bytes | str | Path


def is_packed(path: Path | str) -> bool:
    """Whether `path` is a folder whose config.json says that featherweight packed it."""
    try:
        config = json.loads((Path(path) / CONFIG).read_bytes())
        return bool(config["quantization_config"]["quant_method"] == PACKED)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load(path: Path | str, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model of the packed folder `path`, in evaluation mode.

    `dtype`: the dtype of its computation (None: that of config.json). Raises BadInput, which names
    the file and the tensor, when a file was changed or a tensor is missing or wrong.
    """
    from .. import hf  # noqa: F401  (registers the quantizer)

    source = Source(str(path), Path(path))
    description = descriptions.read(
        source.config.get("quantization_config"), str(source.path / CONFIG)
    )
    check_stored(source.weights, description)
    return load_pretrained(source.path, dtype)


def save(
    model: nn.Module,
    out: Path | str,
    tokenizer: Any = None,
    recipe: str | Mapping[str, Any] | None = None,
    extra_files: Mapping[str, Content] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a compressed transformers model as a packed folder, and return its path.

    `out`: the folder, which appears only when it is complete. `tokenizer`: is saved with the model.
    `recipe`: becomes recipe.yaml (text, or a mapping). `extra_files`: file name -> content (for a
    path, the file is copied). `overwrite`: replace `out` when it exists. Raises UsageError when no
    layer of the model is compressed, or when `out` exists and `overwrite` is not set, BadInput
    when the saved tokenizer would be read in another way.
    """
    out = Path(out)
    description = descriptions.of_model(model)
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists; choose another folder, or say overwrite=True")
    config = _config_of_model(model)
    with atomic_path(out) as folder:
        folder.mkdir()
        if tokenizer is not None:
            _write_config(folder, config, description, {})  # it says which tokenizer is loaded
            tokenizer.save_pretrained(folder)
            write_probe(folder, probe_of(folder, tokenizer))
        files = write_checkpoint(folder, _tensors_of_model(model))
        _write_config(folder, config, description, files)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(folder)
        extras = dict(extra_files or {})
        if recipe is not None:
            extras["recipe.yaml"] = recipe if isinstance(recipe, str) else _yaml(recipe)
        _write_extras(folder, extras)
    return out


def assemble(
    folder: Path,
    source: Source,
    layers: Mapping[str, StoredMatrix],
    parts: Iterable[Path],
    tied_head: str | None = None,
    extra_files: Mapping[str, Content] | None = None,
    limit: int = LIMIT_BYTES,
) -> dict[str, str]:
    """Write the files of a packed model into the existing `folder`, with one tensor in memory at a
    time. Returns the SHA-256 of each weights file.

    `source`: the original model. `layers`: module -> how its matrix is compressed. `parts`:
    safetensors files that hold `<module>.<stored name>` for every layer; a tensor in them that has
    the name of a tensor of the source replaces that tensor. `tied_head`: the module that shares the
    compressed embedding. `extra_files`: file name -> content. `limit`: the largest size of a
    weights file in bytes.

    Raises BadInput, which names the tensor, when a tensor is missing, has another shape or dtype,
    or belongs to no layer.
    """
    original = source.weights
    part_of = {name: part for part in map(TensorFolder, parts) for name in part.names()}
    description = Description(layers, tied_head)
    probe = probe_of(source.path)
    files = write_checkpoint(folder, _tensors_of_parts(original, part_of, description), limit)
    check_stored(TensorFolder(folder), description)
    _write_config(folder, source.true_config, description, files)
    copy_companions(source.path, folder)
    write_probe(folder, probe)
    _write_extras(folder, extra_files or {})
    return files


def copy_companions(source: Path, folder: Path) -> None:
    """Copy tokenizer, generation settings, licence and the like into `folder`, byte for byte."""
    for file in sorted(source.iterdir()):
        if file.is_file() and any(fnmatchcase(file.name, pattern) for pattern in COMPANIONS):
            write_atomic(folder / file.name, file.read_bytes())


def _tensors_of_parts(
    original: TensorFolder, part_of: Mapping[str, TensorFolder], description: Description
) -> list[LazyTensor]:
    """The tensors of the packed files: those of the source without the compressed matrices, and
    the stored tensors of the compressed ones.
    """
    tensors = []
    compressed_names = {f"{module}.weight" for module in description.layers}
    if description.tied_head is not None:
        compressed_names.add(f"{description.tied_head}.weight")
    for name in original.names():
        if name not in compressed_names:
            tensors.append(_tensor_of_file(part_of.get(name, original), name))
    for module, matrix in description.layers.items():
        weight = f"{module}.weight"
        if original.shape(weight) != matrix.shape:
            raise BadInput(
                f"{weight} is {original.shape(weight)} in {original.path}, "
                f"compressed as {matrix.shape}"
            )
        tensors.append(_empty(weight, original.dtype(weight)))
        for name in matrix.stored():
            stored_name = f"{module}.{name}"
            if stored_name not in part_of:
                raise BadInput(f"no part holds tensor {stored_name}")
            tensors.append(_tensor_of_file(part_of[stored_name], stored_name))
    if foreign_names := sorted(set(part_of) - {tensor.name for tensor in tensors}):
        name = foreign_names[0]
        raise BadInput(f"{part_of[name].path} holds tensor {name}, which belongs to no layer")
    return tensors


def _tensor_of_file(folder: TensorFolder, name: str) -> LazyTensor:
    return LazyTensor(name, folder.shape(name), folder.dtype(name), lambda: folder.read(name))


def _empty(name: str, dtype: torch.dtype) -> LazyTensor:
    return LazyTensor(name, (0,), dtype, lambda: torch.empty(0, dtype=dtype))


def _tensors_of_model(model: nn.Module) -> list[LazyTensor]:
    """The tensors of the state dict. A tensor with two names is written once, under the name that
    transformers expects.
    """
    state = model.state_dict()
    tied_names = getattr(model, "all_tied_weights_keys", None) or {}
    for name, original in tied_names.items():
        if (
            name in state
            and original in state
            and state[name].data_ptr() == state[original].data_ptr()
        ):
            del state[name]
    return [
        LazyTensor(name, tuple(tensor.shape), tensor.dtype, _constant(tensor))
        for name, tensor in state.items()
    ]


def _constant(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor


def _config_of_model(model: Any) -> dict[str, Any]:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()]
    dtypes += [layer.weight.dtype for layer in compressed_layers(model).values()]
    config.dtype = str(dtypes[0]).removeprefix("torch.")
    return dict(json.loads(config.to_json_string()))


def _write_config(
    folder: Path, config: dict[str, Any], description: Description, files: dict[str, str]
) -> None:
    entry = Description(description.layers, description.tied_head, files).to_dict()
    text = json.dumps({**config, "quantization_config": entry}, indent=2, sort_keys=True)
    write_atomic(folder / CONFIG, text + "\n")


def _write_extras(folder: Path, extras: Mapping[str, Content]) -> None:
    for name, content in extras.items():
        if Path(name).name != name:
            raise UsageError(f"{name!r} is not a plain file name")
        write_atomic(folder / name, content.read_bytes() if isinstance(content, Path) else content)


def _yaml(recipe: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True))
