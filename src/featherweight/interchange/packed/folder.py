"""Packed model folders: an ordinary transformers folder whose matrices are stored tensors of their
formats.

`save` writes a compressed model that is in memory; `assemble` puts together what a streamed run
left (stored tensors in part files, everything else still in the source folder), copying one tensor
at a time; `load` reads either back, or refuses. The folder holds `model.safetensors` (or shards
with an index), `config.json` with the description of `description.py` and the SHA-256 of each
weights file, and the source's tokenizer and generation files byte for byte. The bytes of weights
and config depend on the model alone: no times, no machine, sorted keys.

For each compressed matrix X the file holds `X.codes`, `X.scale`, ... as its format stores them,
sign bits of its rotations, and an empty `X.weight` in the model's dtype (see
`quantization/layers.py`).
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ...base.errors import BadInput, FeatherweightError, UsageError
from ...base.files import sync_folder, write_atomic
from ...models.config import CONFIG, PACKED, read_config
from ...models.tensors import TensorFolder
from ...quantization.layers import compressed
from ..shards import LIMIT_BYTES, Entry, write_checkpoint
from . import description as descriptions
from .description import Description, StoredMatrix
from .verify import check_stored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Copied from the source byte for byte.
COPIED = (
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
    """The model of a packed folder, in evaluation mode, computing in `dtype` (None: as config.json
    says).

    Raises BadInput, naming file and tensor, unless the folder is exactly what was written.
    """
    from transformers import AutoModelForCausalLM

    from .. import hf  # noqa: F401  (registers the quantizer)

    path = Path(path)
    description = descriptions.read(
        read_config(path).get("quantization_config"), str(path / CONFIG)
    )
    check_stored(TensorFolder(path), description)
    read: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, info = read(
            path,
            dtype=dtype or "auto",
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except FeatherweightError:
        raise
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
        ImportError,
        AttributeError,
    ) as error:
        raise BadInput(f"{path} cannot be loaded: {error}") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if problems := sorted(map(str, info.get(kind) or ())):
            raise BadInput(f"{path}: {kind.replace('_', ' ')}: {', '.join(problems[:3])}")
    return cast("PreTrainedModel", model)


def save(
    model: nn.Module,
    out: Path | str,
    tokenizer: Any = None,
    recipe: str | Mapping[str, Any] | None = None,
    extra_files: Mapping[str, Content] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a compressed model (transformers) as a packed folder; it appears at `out` complete or
    not at all.

    `recipe` becomes recipe.yaml; `extra_files` maps file names to their content (a path: copied).
    Raises UsageError when nothing in the model is compressed or `out` exists (unless `overwrite`).
    """
    out = Path(out)
    description = descriptions.of_model(model)
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists; choose another folder, or say overwrite=True")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        files = write_checkpoint(temporary, _entries_of_model(model))
        _write_config(temporary, _config_of_model(model), description, files)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        extras = dict(extra_files or {})
        if recipe is not None:
            extras["recipe.yaml"] = recipe if isinstance(recipe, str) else _yaml(recipe)
        _write_extras(temporary, extras)
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
        sync_folder(out.absolute().parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def assemble(
    folder: Path,
    source: Path,
    layers: Mapping[str, StoredMatrix],
    parts: Iterable[Path],
    tied_head: str | None = None,
    extra_files: Mapping[str, Content] | None = None,
    limit: int = LIMIT_BYTES,
) -> dict[str, str]:
    """Write weights and config of a packed model into `folder` (exists); returns weights file ->
    SHA-256.

    `parts` are safetensors files that hold `<module>.<stored name>` for every layer; a tensor there
    under a name of the source replaces the source's. `source` is the original model folder. One
    tensor is in memory at a time. Raises BadInput naming the tensor when one is missing, has
    another shape or dtype, or belongs to nothing.
    """
    original = TensorFolder(source)
    solved = [TensorFolder(part) for part in parts]
    where = {name: part for part in solved for name in part.names()}
    description = Description(layers, tied_head)
    files = write_checkpoint(folder, _entries_of_parts(original, where, description), limit)
    check_stored(TensorFolder(folder), description)
    _write_config(folder, read_config(source), description, files)
    copy_companions(source, folder)
    _write_extras(folder, extra_files or {})
    return files


def copy_companions(source: Path, folder: Path) -> None:
    """Copy tokenizer, generation settings, licence and the like into `folder`, byte for byte."""
    for file in sorted(source.iterdir()):
        if file.is_file() and any(fnmatchcase(file.name, pattern) for pattern in COPIED):
            write_atomic(folder / file.name, file.read_bytes())


def _entries_of_parts(
    original: TensorFolder, where: Mapping[str, TensorFolder], description: Description
) -> list[Entry]:
    """What the packed files hold: each tensor of the source but the compressed matrices, and what
    stands for those.
    """
    entries = []
    replaced = {f"{module}.weight" for module in description.layers}
    dropped = set() if description.tied_head is None else {f"{description.tied_head}.weight"}
    for name in original.names():
        if name not in replaced | dropped:
            entries.append(_entry_of_file(where.get(name, original), name))
    for module, layer in description.layers.items():
        weight = f"{module}.weight"
        if original.shape(weight) != layer.shape:
            raise BadInput(
                f"{weight} is {original.shape(weight)} in {original.path}, compressed as {layer.shape}"
            )
        entries.append(_empty(weight, original.dtype(weight)))
        for name in layer.stored():
            full = f"{module}.{name}"
            if full not in where:
                raise BadInput(f"no part holds tensor {full}")
            entries.append(_entry_of_file(where[full], full))
    if unknown := sorted(set(where) - {entry.name for entry in entries}):
        raise BadInput(
            f"{where[unknown[0]].path} holds tensor {unknown[0]}, which belongs to no layer"
        )
    return entries


def _entry_of_file(folder: TensorFolder, name: str) -> Entry:
    return Entry(name, folder.shape(name), folder.dtype(name), lambda: folder.read(name))


def _empty(name: str, dtype: torch.dtype) -> Entry:
    return Entry(name, (0,), dtype, lambda: torch.empty(0, dtype=dtype))


def _entries_of_model(model: nn.Module) -> list[Entry]:
    """The state dict, tensors that two names share only once (under the name that transformers
    expects).
    """
    state = model.state_dict()
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for name, original in tied.items():
        if (
            name in state
            and original in state
            and state[name].data_ptr() == state[original].data_ptr()
        ):
            del state[name]
    return [
        Entry(name, tuple(tensor.shape), tensor.dtype, _constant(tensor))
        for name, tensor in state.items()
    ]


def _constant(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor


def _config_of_model(model: Any) -> dict[str, Any]:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()]
    dtypes += [layer.weight.dtype for layer in compressed(model).values()]
    config.dtype = str(dtypes[0]).removeprefix("torch.")
    return dict(json.loads(config.to_json_string()))


def _write_config(
    folder: Path, config: dict[str, Any], description: Description, files: dict[str, str]
) -> None:
    full = Description(description.layers, description.tied_head, files)
    text = json.dumps({**config, "quantization_config": full.to_dict()}, indent=2, sort_keys=True)
    write_atomic(folder / CONFIG, text + "\n")


def _write_extras(folder: Path, extras: Mapping[str, Content]) -> None:
    for name, content in extras.items():
        if Path(name).name != name:
            raise UsageError(f"{name!r} is not a plain file name")
        write_atomic(folder / name, content.read_bytes() if isinstance(content, Path) else content)


def _yaml(recipe: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True))
