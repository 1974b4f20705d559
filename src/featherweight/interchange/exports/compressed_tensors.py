"""A packed model as a compressed-tensors checkpoint ("pack-quantized"), code for code: what vLLM
and others read.

For each compressed linear layer X, in files written by hand (the package itself is only the judge
in the tests):

    X.weight_packed   int32 (rows, ceil(columns bits / 32))   level + 2^(bits - 1), lowest bits first along a row
    X.weight_scale    model dtype (rows, columns / group)
    X.weight_shape    int64 (2,)

A reader multiplies level and scale in the model's dtype, so a scale must be exact there: `portable`
scales are, in every dtype. Only symmetric codes are written, because readers disagree about zero
points. 4 and 8 bits are read everywhere, 2 by vLLM (with its Humming kernels) and by transformers;
the packing of 3, 5, 6 and 7 bits changed between releases 0.17 and 0.18 of the format, so these
need `odd_bits` and are written as 0.18 reads them, densely. Layers that runtimes fuse (q/k/v,
gate/up) must agree in bits and group.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Integer
from torch import Tensor

from ...base.errors import ExportFailed, UsageError
from ...base.events import Event, Listener, silent
from ...base.files import write_atomic
from ...models.config import CONFIG
from ...models.tensors import TensorFolder
from ...quantization.formats.base import Integers
from ..packed.folder import copy_companions
from ..shards import Entry, write_checkpoint
from .base import ExportResult, PackedModel, appearing, compare, refuse, rotated

STAGE = "export"
EVERYWHERE, SOMEWHERE = (4, 8), (2,)
FUSED_KERNELS = (-1, 32, 64, 128)  # groups that vLLM's Marlin kernels take
HINT = "requantize with --preset portable (4 or 8 bits, tables untouched), or export --to gguf or --to hf"


@dataclass(frozen=True)
class Scheme:
    """How one layer is written: bits of a code and columns of a group (-1: the whole row)."""

    bits: int
    group: int


def export_compressed_tensors(
    model: PackedModel,
    out: Path,
    overwrite: bool = False,
    odd_bits: bool = False,
    listener: Listener = silent,
) -> ExportResult:
    """Write `model` to the folder `out`; it appears complete and compared, or not at all.

    Raises UsageError for what the format cannot hold exactly, ExportFailed when the files read
    again are not the model.
    """
    schemes = plan_schemes(model, odd_bits)
    notes = _notes(schemes)
    with appearing(out, overwrite) as folder:
        folder.mkdir()
        entries = _entries(model, schemes, listener)
        write_checkpoint(folder, entries)
        config = {**model.settings, "quantization_config": _config(model, schemes)}
        write_atomic(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
        copy_companions(model.path, folder)
        _compare(folder, model, schemes, listener)
        file_bytes = TensorFolder(folder).file_bytes
        write_atomic(folder / "README.md", _card(model, schemes, notes))
    types = Counter(f"{scheme.bits} bits" for scheme in schemes.values())
    types.update(
        str(model.dtype(n)).removeprefix("torch.") for n in model.names if _module(n) not in schemes
    )
    return ExportResult(out, file_bytes, dict(types), len(model.names), notes)


def plan_schemes(model: PackedModel, odd_bits: bool = False) -> dict[str, Scheme]:
    """How each compressed layer is written.

    Raises UsageError naming the layers that cannot be, and the nearest way.
    """
    linears = set(model.linears())
    schemes: dict[str, Scheme] = {}
    problems = []
    for name in model.names:
        module, layer = _module(name), model.layer(name)
        if layer is None:
            continue
        try:
            if module not in linears:
                raise UsageError(
                    "tables are not compressed in this format; leave them in the model's dtype"
                )
            matrix = None if rotated(layer) else layer.format.integers(model.qweight(name))
            if matrix is None:
                turned = "rotated" if rotated(layer) else "no scaled integers"
                raise UsageError(f"{turned}; the nearest is Int(bits=4, group=32, portable=True)")
            schemes[module] = _scheme(matrix, model.dtype(name), odd_bits)
        except UsageError as error:
            problems.append(f"{module}, {layer.format!r}: {error}")
    refuse(problems, HINT)
    for group in model.shared_inputs():
        if len({schemes.get(name) for name in group}) > 1:
            raise UsageError(
                f"{', '.join(group)} read one input, so runtimes fuse them, but their bits or groups differ; "
                "requantize them alike, or export --to gguf"
            )
    return schemes


def _scheme(matrix: Integers, dtype: torch.dtype, odd_bits: bool) -> Scheme:
    if not isinstance(matrix.zero, int):
        raise UsageError("readers disagree about zero points; symmetric codes are the nearest")
    bits = max((-matrix.lowest - 1).bit_length(), matrix.highest.bit_length()) + 1
    if bits not in EVERYWHERE + SOMEWHERE and not odd_bits:
        raise UsageError(
            f"{bits}-bit codes are packed differently by different releases; 4 bits are the nearest"
        )
    if not torch.equal(matrix.scale.to(dtype).float(), matrix.scale):
        raise UsageError(
            f"its scales are not exact in the model's {dtype}; portable=True makes them so"
        )
    return Scheme(bits, -1 if matrix.scale.shape[1] == 1 else matrix.group)


def pack(codes: Integer[np.ndarray, "rows columns"], bits: int) -> Int32[np.ndarray, "rows words"]:
    """Unsigned codes as a stream of bits along each row, lowest first, in little-endian words;
    zeros fill the last.
    """
    rows, columns = codes.shape
    spare = -columns * bits % 32
    stream = codes[..., None] >> np.arange(bits, dtype=codes.dtype) & 1
    padded = np.pad(stream.reshape(rows, -1).astype(np.uint8), ((0, 0), (0, spare)))
    return np.packbits(padded, axis=1, bitorder="little").view("<i4")


def unpack(
    words: Int32[np.ndarray, "rows words"], columns: int, bits: int
) -> Int32[np.ndarray, "rows columns"]:
    """The codes, by arithmetic on whole words instead of bytes: code i lies across words i bits /
    32 and the next.
    """
    wide = np.pad(words.view("<u4").astype(np.uint64), ((0, 0), (0, 1)))
    at = np.arange(columns) * bits
    pair = wide[:, at // 32] | wide[:, at // 32 + 1] << np.uint64(32)
    return (pair >> (at % 32).astype(np.uint64) & np.uint64((1 << bits) - 1)).astype(np.int32)


def _entries(model: PackedModel, schemes: dict[str, Scheme], listener: Listener) -> list[Entry]:
    entries: list[Entry] = []
    for done, name in enumerate(model.names, 1):
        scheme = schemes.get(_module(name))
        if scheme is None or not name.endswith(".weight"):
            entries.append(Entry(name, model.shape(name), model.dtype(name), _reader(model, name)))
            continue
        rows, columns = model.shape(name)
        groups = 1 if scheme.group < 0 else columns // scheme.group
        words = -(-columns * scheme.bits // 32)
        entries += [
            Entry(
                f"{name}_packed",
                (rows, words),
                torch.int32,
                _packer(model, name, scheme, listener, done),
            ),
            Entry(f"{name}_scale", (rows, groups), model.dtype(name), _scaler(model, name)),
            Entry(f"{name}_shape", (2,), torch.int64, _shaper(rows, columns)),
        ]
    return entries


def _reader(model: PackedModel, name: str) -> Callable[[], Tensor]:
    return lambda: model.read(name)


def _shaper(rows: int, columns: int) -> Callable[[], Tensor]:
    return lambda: torch.tensor([rows, columns])


def _scaler(model: PackedModel, name: str) -> Callable[[], Tensor]:
    return lambda: _matrix(model, name).scale.to(model.dtype(name))


def _packer(
    model: PackedModel, name: str, scheme: Scheme, listener: Listener, done: int
) -> Callable[[], Tensor]:
    def read() -> Tensor:
        matrix = _matrix(model, name)
        levels = matrix.codes.to(torch.int16) - matrix.zero
        listener(Event(STAGE, done, 2 * len(model.names), message=name))
        return torch.from_numpy(pack((levels + (1 << (scheme.bits - 1))).numpy(), scheme.bits))

    return read


def _matrix(model: PackedModel, name: str) -> Integers:
    layer = model.layer(name)
    matrix = None if layer is None else layer.format.integers(model.qweight(name))
    assert matrix is not None  # planned so
    return matrix


def _compare(
    folder: Path, model: PackedModel, schemes: dict[str, Scheme], listener: Listener
) -> None:
    """Decode what was written, as readers do, and compare each tensor of the model with it; nothing
    may be left.
    """
    tensors = TensorFolder(folder)
    left = set(tensors.names())
    for done, name in enumerate(model.names, 1):
        scheme = schemes.get(_module(name)) if name.endswith(".weight") else None
        stored = (
            [name]
            if scheme is None
            else [f"{name}_{part}" for part in ("packed", "scale", "shape")]
        )
        if not left.issuperset(stored):
            raise ExportFailed(f"{folder}: {name} was not written exactly once")
        left.difference_update(stored)
        if scheme is None:
            found = tensors.read(name)
        else:
            words, scale, shape = (tensors.read(part) for part in stored)
            codes = torch.from_numpy(unpack(words.numpy(), int(shape[1]), scheme.bits))
            levels = (codes - (1 << (scheme.bits - 1))).to(scale.dtype)
            found = (levels.unflatten(1, (scale.shape[1], -1)) * scale[..., None]).flatten(1)
        compare(name, found, model.read(name).to(found.dtype), folder)
        listener(Event(STAGE, len(model.names) + done, 2 * len(model.names), message=name))
    if left:
        raise ExportFailed(f"{folder}: {sorted(left)[0]} belongs to no tensor of the model")


def _config(model: PackedModel, schemes: dict[str, Scheme]) -> dict[str, Any]:
    by_scheme: dict[Scheme, list[str]] = {}
    for module, scheme in schemes.items():
        by_scheme.setdefault(scheme, []).append(module)
    groups = {
        f"group_{i}": {
            "targets": ["Linear"] if len(by_scheme) == 1 else modules,
            "weights": _weights(scheme),
            "input_activations": None,
            "output_activations": None,
        }
        for i, (scheme, modules) in enumerate(by_scheme.items())
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": [name for name in model.linears() if name not in schemes],
        "config_groups": groups,
    }


def _weights(scheme: Scheme) -> dict[str, Any]:
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": True,
        "strategy": "channel" if scheme.group < 0 else "group",
        "group_size": None if scheme.group < 0 else scheme.group,
        "dynamic": False,
        "actorder": None,
        "block_structure": None,
        "observer": "minmax",
        "observer_kwargs": {},
    }


def _notes(schemes: dict[str, Scheme]) -> list[str]:
    notes = []
    for scheme, num in Counter(schemes.values()).items():
        group = "rows" if scheme.group < 0 else f"groups of {scheme.group}"
        notes.append(f"{num} linear layers in {scheme.bits} bits with scales for {group}")
        if scheme.bits not in EVERYWHERE:
            where = (
                "vLLM only"
                if scheme.bits in SOMEWHERE
                else "readers of compressed-tensors 0.18 and later only"
            )
            notes.append(f"{scheme.bits} bits: {where}")
        if scheme.group not in FUSED_KERNELS:
            notes.append(
                f"groups of {scheme.group} are outside what vLLM's fast kernels take (32, 64, 128, whole rows)"
            )
    return notes


def _card(model: PackedModel, schemes: dict[str, Scheme], notes: list[str]) -> str:
    lines = "\n".join(f"- {note}" for note in notes)
    return (
        f"# {model.path.resolve().name}, for compressed-tensors\n\nExported by featherweight code for code from a packed "
        "model: nothing was rounded again, and the files were read back and compared.\n\n"
        f"{lines}\n\n```python\n# pip install transformers compressed-tensors\nfrom transformers import "
        'AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")\n```\n'
        "or `vllm serve THIS_FOLDER`.\n"
    )


def _module(name: str) -> str:
    return name.rpartition(".")[0]
