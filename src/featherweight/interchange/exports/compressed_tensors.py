"""Export of a packed model to a compressed-tensors checkpoint ("pack-quantized"), which vLLM,
transformers and others read.

The files are written here without the compressed-tensors package; the tests use the package to read
them. Each compressed linear layer X has three tensors:

    X.weight_packed   int32 (rows, ceil(columns bits / 32))
    X.weight_scale    model dtype (rows, columns / group)
    X.weight_shape    int64 (2,)

A packed word holds level + 2^(bits - 1), the lowest bits first along a row.

A reader multiplies level and scale in the model's dtype, so the scale must be exact in that dtype.
Formats with `portable=True` have scales that are exact in every dtype. Only symmetric codes are
written, because readers disagree about zero points. All readers support 4 and 8 bits; vLLM (with
its Humming kernels) and transformers support 2 bits. The packing of 3, 5, 6 and 7 bits changed
between releases 0.17 and 0.18 of the format. These bits need the option `odd_bits` and are written
in the packing of 0.18, which leaves no gaps between codes. Layers that runtimes fuse (q/k/v,
gate/up) must have the same bits and group.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Integer
from torch import Tensor

from ...base.errors import ExportFailed, UsageError
from ...base.files import write_atomic
from ...models.config import CONFIG
from ...models.tensors import TensorFolder
from ...quantization.formats.base import Integers
from ..packed.folder import copy_companions
from ..packed.model import PackedMatrix, PackedModel
from ..shards import LazyTensor, write_checkpoint
from ..tensor_progress import TensorProgress
from ..tokenizer_check import probe_of, write_probe
from .base import Exporter, ExportPlan, compare, refuse

ALL_READERS, NEWER_READERS = (4, 8), (2,)  # bits
FUSED_GROUPS = (-1, 32, 64, 128)  # groups that vLLM's Marlin kernels take
HINT = (
    "requantize with --preset portable (4 or 8 bits, tables untouched), "
    "or export --to gguf or --to hf"
)


@dataclass(frozen=True)
class Scheme:
    """How one layer is written: bits of a code, and columns that share a scale (-1: all
    columns).
    """

    bits: int
    group: int


Plan = ExportPlan[Scheme | None]


@dataclass(frozen=True)
class CompressedTensors(Exporter[Scheme | None]):
    """Writes a compressed-tensors folder.

    `odd_bits` allows 3, 5, 6 and 7 bits, which releases of compressed-tensors before 0.18 misread.
    The plan has a `Scheme` for each compressed weight and None for every other tensor.
    """

    odd_bits: bool = False

    def holds(self, matrix: PackedMatrix) -> str | None:
        if matrix.is_table:
            return "tables are not compressed in this format; leave them in the model's dtype"
        integers = matrix.integers
        if integers is None:
            obstacle = "rotated" if matrix.stored_matrix.is_rotated else "no scaled integers"
            return f"{obstacle}; the nearest is Int(bits=4, group=32, portable=True)"
        if not isinstance(integers.zero, int):
            return "readers disagree about zero points; symmetric codes are the nearest"
        bits = _bits(integers)
        if bits not in ALL_READERS + NEWER_READERS and not self.odd_bits:
            return (
                f"{bits}-bit codes are packed differently by different releases; "
                "4 bits are the nearest"
            )
        if not torch.equal(integers.scale.to(matrix.dtype).float(), integers.scale):
            return (
                f"its scales are not exact in the model's {matrix.dtype}; "
                "portable=True makes them so"
            )
        return None

    def plan(self, model: PackedModel) -> Plan:
        schemes: dict[str, Scheme | None] = {}
        problems = []
        for name in model.names:
            matrix = model.matrix(name)
            reason = None if matrix is None else self.holds(matrix)
            if matrix is not None and reason is not None:
                problems.append(f"{matrix.name}, {matrix.stored_matrix.format!r}: {reason}")
                continue
            schemes[name] = None if matrix is None else _scheme(matrix)
        refuse(problems, HINT)
        for group in model.shared_inputs():
            if len({schemes.get(f"{name}.weight") for name in group}) > 1:
                raise UsageError(
                    f"{', '.join(group)} read one input, so runtimes fuse them, but their bits or "
                    "groups differ; requantize them alike, or export --to gguf"
                )
        types = Counter(f"{scheme.bits} bits" for scheme in schemes.values() if scheme)
        types.update(
            str(model.dtype(name)).removeprefix("torch.")
            for name, scheme in schemes.items()
            if scheme is None
        )
        return ExportPlan(schemes, types, _notes(schemes))

    def write(self, model: PackedModel, plan: Plan, path: Path, progress: TensorProgress) -> None:
        path.mkdir()
        probe = probe_of(model.path)
        write_checkpoint(path, _tensors(model, plan, progress))
        config = {**model.settings, "quantization_config": _config(model, plan)}
        write_atomic(path / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
        copy_companions(model.path, path)
        write_probe(path, probe)
        write_atomic(path / "README.md", _card(model, plan.notes))

    def read_back(
        self, model: PackedModel, plan: Plan, path: Path, progress: TensorProgress
    ) -> None:
        tensors = TensorFolder(path)
        unread_names = set(tensors.names())
        for name, scheme in plan.tensors.items():
            stored_names = [name]
            if scheme is not None:
                stored_names = [f"{name}_{part}" for part in ("packed", "scale", "shape")]
            if not unread_names.issuperset(stored_names):
                raise ExportFailed(f"{path}: {name} was not written exactly once")
            unread_names.difference_update(stored_names)
            parts = [tensors.read(stored_name) for stored_name in stored_names]
            weight = parts[0] if scheme is None else _decode(scheme, *parts)
            compare(name, weight, model.read(name).to(weight.dtype), path)
            progress.advance(name)
        if unread_names:
            name = sorted(unread_names)[0]
            raise ExportFailed(f"{path}: {name} belongs to no tensor of the model")


def _bits(integers: Integers) -> int:
    """The number of bits of the smallest signed integer that holds every level."""
    return max((-integers.lowest - 1).bit_length(), integers.highest.bit_length()) + 1


def _scheme(matrix: PackedMatrix) -> Scheme:
    integers = matrix.integers
    assert integers is not None  # `holds` returned None, so the matrix has integers
    return Scheme(_bits(integers), -1 if integers.scale.shape[1] == 1 else integers.group)


def pack(codes: Integer[np.ndarray, "rows columns"], bits: int) -> Int32[np.ndarray, "rows words"]:
    """Write the unsigned codes of each row one after another as a stream of bits, the lowest bit of
    a code first, and cut it into little-endian words; zeros fill the last word.
    """
    rows, columns = codes.shape
    padding = -columns * bits % 32
    stream = codes[..., None] >> np.arange(bits, dtype=codes.dtype) & 1
    stream = np.pad(stream.reshape(rows, -1).astype(np.uint8), ((0, 0), (0, padding)))
    return np.packbits(stream, axis=1, bitorder="little").view("<i4")


def unpack(
    words: Int32[np.ndarray, "rows words"], columns: int, bits: int
) -> Int32[np.ndarray, "rows columns"]:
    """The inverse of `pack`, written in another way so that an error in `pack` shows.

    Code i starts in word `i * bits // 32` and may continue in the next one, so it is cut out of the
    64-bit number that these two words form.
    """
    words_64 = np.pad(words.view("<u4").astype(np.uint64), ((0, 0), (0, 1)))
    first_bit = np.arange(columns) * bits
    pairs = words_64[:, first_bit // 32] | words_64[:, first_bit // 32 + 1] << np.uint64(32)
    mask = np.uint64((1 << bits) - 1)
    return (pairs >> (first_bit % 32).astype(np.uint64) & mask).astype(np.int32)


def _decode(scheme: Scheme, words: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
    """The weight that readers compute from its three stored tensors, in the model's dtype."""
    codes = torch.from_numpy(unpack(words.numpy(), int(shape[1]), scheme.bits))
    levels = (codes - (1 << (scheme.bits - 1))).to(scale.dtype)
    return (levels.unflatten(1, (scale.shape[1], -1)) * scale[..., None]).flatten(1)


def _tensors(model: PackedModel, plan: Plan, progress: TensorProgress) -> list[LazyTensor]:
    tensors: list[LazyTensor] = []
    for name, scheme in plan.tensors.items():
        dtype, shape = model.dtype(name), model.shape(name)
        if scheme is None:
            tensors.append(progress.observe(LazyTensor(name, shape, dtype, _reader(model, name))))
            continue
        rows, columns = shape
        groups = 1 if scheme.group < 0 else columns // scheme.group
        words = -(-columns * scheme.bits // 32)
        packed_codes = LazyTensor(
            f"{name}_packed", (rows, words), torch.int32, _packer(model, name, scheme)
        )
        tensors += [
            progress.observe(packed_codes),
            LazyTensor(f"{name}_scale", (rows, groups), dtype, _scale_reader(model, name)),
            LazyTensor(f"{name}_shape", (2,), torch.int64, _shape_reader(rows, columns)),
        ]
    return tensors


def _reader(model: PackedModel, name: str) -> Callable[[], Tensor]:
    return lambda: model.read(name)


def _shape_reader(rows: int, columns: int) -> Callable[[], Tensor]:
    return lambda: torch.tensor([rows, columns])


def _scale_reader(model: PackedModel, name: str) -> Callable[[], Tensor]:
    return lambda: _integers(model, name).scale.to(model.dtype(name))


def _packer(model: PackedModel, name: str, scheme: Scheme) -> Callable[[], Tensor]:
    def read() -> Tensor:
        integers = _integers(model, name)
        levels = integers.codes.to(torch.int16) - integers.zero
        return torch.from_numpy(pack((levels + (1 << (scheme.bits - 1))).numpy(), scheme.bits))

    return read


def _integers(model: PackedModel, name: str) -> Integers:
    matrix = model.matrix(name)
    integers = None if matrix is None else matrix.integers
    assert integers is not None  # only matrices with integers have a scheme in the plan
    return integers


def _config(model: PackedModel, plan: Plan) -> dict[str, Any]:
    modules_by_scheme: dict[Scheme, list[str]] = {}
    for name, scheme in plan.tensors.items():
        if scheme is not None:
            modules_by_scheme.setdefault(scheme, []).append(name.removesuffix(".weight"))
    groups = {
        f"group_{i}": {
            "targets": ["Linear"] if len(modules_by_scheme) == 1 else modules,
            "weights": _weights(scheme),
            "input_activations": None,
            "output_activations": None,
        }
        for i, (scheme, modules) in enumerate(modules_by_scheme.items())
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": [name for name in model.linears if plan.tensors.get(f"{name}.weight") is None],
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


def _notes(schemes: Mapping[str, Scheme | None]) -> list[str]:
    notes = []
    for scheme, num in Counter(filter(None, schemes.values())).items():
        group = "rows" if scheme.group < 0 else f"groups of {scheme.group}"
        notes.append(f"{num} linear layers in {scheme.bits} bits with scales for {group}")
        if scheme.bits not in ALL_READERS:
            readers = (
                "vLLM only"
                if scheme.bits in NEWER_READERS
                else "readers of compressed-tensors 0.18 and later only"
            )
            notes.append(f"{scheme.bits} bits: {readers}")
        if scheme.group not in FUSED_GROUPS:
            notes.append(
                f"groups of {scheme.group} are outside what vLLM's fast kernels take "
                "(32, 64, 128, whole rows)"
            )
    return notes


def _card(model: PackedModel, notes: list[str]) -> str:
    lines = "\n".join(f"- {note}" for note in notes)
    return (
        f"# {model.path.resolve().name}, for compressed-tensors\n\n"
        "Exported by featherweight code for code from a packed model: nothing was rounded again, "
        "and the files were read back and compared.\n\n"
        f"{lines}\n\n"
        "```python\n# pip install transformers compressed-tensors\n"
        "from transformers import AutoModelForCausalLM\n\n"
        'model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")\n```\n'
        "or `vllm serve THIS_FOLDER`.\n"
    )
