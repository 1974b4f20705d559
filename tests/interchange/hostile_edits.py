"""Edits of a model folder: of its settings, weights, tokenizer and chat template.

A folder is a mapping of file names to bytes. An `Edit` changes it in place, and its `repr` says
how, so that a failing example can be read and repeated. hostile_strategies.py draws them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

Files = dict[str, bytes]
Tensors = dict[str, torch.Tensor]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FAMILIES = ("llama", "qwen3", "gemma3")


class Edit(ABC):
    """One change of a folder. An edit that does not apply any more changes nothing."""

    @abstractmethod
    def apply(self, files: Files) -> None:
        """Change `files`."""


@dataclass(frozen=True)
class SetKey(Edit):
    """Set, or add, one key of a JSON file."""

    file: str
    path: tuple[str, ...]
    value: Any

    def apply(self, files: Files) -> None:
        content = _json(files, self.file, {})
        inside = content
        for key in self.path[:-1]:
            if isinstance(inside, dict):
                inside = inside.setdefault(key, {})
        if isinstance(inside, dict):
            inside[self.path[-1]] = self.value
            files[self.file] = _text(content)


@dataclass(frozen=True)
class RemoveKey(Edit):
    """Remove one key of a JSON file."""

    file: str
    key: str

    def apply(self, files: Files) -> None:
        content = _json(files, self.file, None)
        if isinstance(content, dict):
            content.pop(self.key, None)
            files[self.file] = _text(content)


@dataclass(frozen=True)
class NestConfig(Edit):
    """Move the configuration below a key, as multimodal models have it."""

    key: str
    model_type: str

    def apply(self, files: Files) -> None:
        content = _json(files, CONFIG, None)
        if isinstance(content, dict):
            files[CONFIG] = _text({"model_type": self.model_type, self.key: content})


@dataclass(frozen=True)
class WriteFile(Edit):
    """Replace, or add, a file."""

    file: str
    content: bytes

    def apply(self, files: Files) -> None:
        files[self.file] = self.content


@dataclass(frozen=True)
class RemoveFile(Edit):
    """Remove a file."""

    file: str

    def apply(self, files: Files) -> None:
        files.pop(self.file, None)


@dataclass(frozen=True)
class CutFile(Edit):
    """Keep only a share of a file's bytes, or replace one byte at that place."""

    file: str
    share: float
    replacement: bytes | None

    def apply(self, files: Files) -> None:
        content = files.get(self.file, b"")
        place = int(self.share * len(content))
        tail = b"" if self.replacement is None else self.replacement + content[place + 1 :]
        if self.file in files:
            files[self.file] = content[:place] + tail


@dataclass(frozen=True)
class EditTensors(Edit):
    """Rename, add, remove or replace tensors; `kind` is a key of TENSOR_EDITS."""

    kind: str
    choice: int

    def apply(self, files: Files) -> None:
        try:
            tensors = load_tensors(files.get(WEIGHTS, b""))
        except Exception:  # an earlier edit damaged the file
            return
        if tensors:
            changed = TENSOR_EDITS[self.kind](tensors, self.choice)
            files[WEIGHTS] = _weights(changed)


@dataclass(frozen=True)
class Shard(Edit):
    """Split the weights into two shards and change the index; `kind` is a key of INDEX_EDITS."""

    kind: str

    def apply(self, files: Files) -> None:
        try:
            tensors = load_tensors(files.get(WEIGHTS, b""))
        except Exception:
            return
        names = sorted(tensors)
        shards = {f"model-0000{part + 1}-of-00002.safetensors": names[part::2] for part in range(2)}
        for shard, shard_names in shards.items():
            files[shard] = _weights({name: tensors[name] for name in shard_names})
        weight_map: Any = {name: shard for shard, part in shards.items() for name in part}
        del files[WEIGHTS]
        INDEX_EDITS[self.kind](files, weight_map, names)
        files.setdefault(INDEX, _text({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def _json(files: Files, file: str, default: Any) -> Any:
    try:
        return json.loads(files[file])
    except (KeyError, ValueError, RecursionError):
        return default


def _text(content: Any) -> bytes:
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _weights(tensors: Tensors) -> bytes:
    contiguous = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    return bytes(save_tensors(contiguous, {"format": "pt"}))


def _pick(tensors: Tensors, choice: int) -> str:
    names = sorted(tensors)
    return names[choice % len(names)]


def _with(tensors: Tensors, choice: int, change: Any) -> Tensors:
    name = _pick(tensors, choice)
    return tensors | {name: change(tensors[name])}


def _renamed(tensors: Tensors, choice: int) -> Tensors:
    old = _pick(tensors, choice)
    names = ("model." + old, old.removeprefix("model."), old + "s", old.upper(), "lm_head.bias")
    return {(names[choice % 5] if name == old else name): t for name, t in tensors.items()}


def _with_head(tensors: Tensors, choice: int) -> Tensors:
    table = tensors.get(TABLE, torch.ones(3, 4))
    heads = (table.clone(), table.flip(0), table[:-1], table.double(), table * float("nan"))
    return tensors | {HEAD: heads[choice % 5]}


def _head_only(tensors: Tensors, choice: int) -> Tensors:
    return {(HEAD if name == TABLE else name): t for name, t in tensors.items() if name != HEAD}


def _ignored_tensors(tensors: Tensors, choice: int) -> Tensors:
    names = (
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.layers.0.self_attn.masked_bias",
        "model.position_ids",
        "model.layers.7.mlp.up_proj.weight",
        "",
        "../outside",
    )
    return tensors | {names[choice % len(names)]: torch.ones(8)}


DTYPES = (
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.int64,
    torch.int8,
    torch.bool,
    torch.float8_e4m3fn,
)
SHAPES = (
    lambda t: t.T if t.ndim == 2 else t[:-1],
    lambda t: t.reshape(-1),
    lambda t: t[None],
    lambda t: t[:0],
    lambda t: t.reshape(-1)[0],
    lambda t: torch.cat([t, t]),
    lambda t: t[..., :-1],
)
NUMBERS = (float("nan"), float("inf"), 0.0, 1e38, -1e-30)

TENSOR_EDITS: dict[str, Any] = {
    "drop": lambda tensors, n: {k: t for k, t in tensors.items() if k != _pick(tensors, n)},
    "rename": _renamed,
    "without prefix": lambda tensors, n: {k.removeprefix("model."): t for k, t in tensors.items()},
    "with prefix": lambda tensors, n: {"model." + k: t for k, t in tensors.items()},
    "another prefix": lambda tensors, n: {"transformer." + k: t for k, t in tensors.items()},
    "head": _with_head,
    "head only": _head_only,
    "ignored": _ignored_tensors,
    "shape": lambda tensors, n: _with(tensors, n, SHAPES[n % len(SHAPES)]),
    "dtype": lambda tensors, n: _with(tensors, n, lambda t: t.to(DTYPES[n % len(DTYPES)])),
    "all dtypes": lambda tensors, n: {k: t.to(DTYPES[n % 3]) for k, t in tensors.items()},
    "numbers": lambda tensors, n: _with(tensors, n, lambda t: t.clone().fill_(NUMBERS[n % 5])),
    "none": lambda tensors, n: {},
}


def _index_that_leads(place: str) -> Any:
    def edit(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
        weight_map[names[0]] = place

    return edit


def _missing_shard(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    del files[weight_map[names[0]]]


def _tensor_in_two_shards(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    first, second = (load_tensors(files[weight_map[name]]) for name in names[:2])
    files[weight_map[names[1]]] = _weights(second | {names[0]: first[names[0]] + 1})


def _unnamed_tensor(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    del weight_map[names[0]]


def _promised_tensor(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    weight_map["model.layers.9.mlp.up_proj.weight"] = weight_map[names[0]]


def _no_map(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    files[INDEX] = _text({"weight_map": names})


def _both(files: Files, weight_map: dict[str, Any], names: list[str]) -> None:
    """Another whole file beside the shards: transformers reads that."""
    tensors = {
        name: tensor
        for file in set(weight_map.values())
        for name, tensor in load_tensors(files[file]).items()
    }
    files[WEIGHTS] = _weights({name: tensor * 1.01 for name, tensor in tensors.items()})


INDEX_EDITS: dict[str, Any] = {
    "sound": lambda files, weight_map, names: None,
    "outside": _index_that_leads("../outside.safetensors"),
    "absolute": _index_that_leads("/etc/passwd"),
    "folder": _index_that_leads("."),
    "number": _index_that_leads(3),  # type: ignore[arg-type]
    "missing shard": _missing_shard,
    "twice": _tensor_in_two_shards,
    "unnamed": _unnamed_tensor,
    "promised": _promised_tensor,
    "no map": _no_map,
    "both": _both,
}
