"""Export of a packed model to one GGUF file, the format of llama.cpp and its relatives.

Each compressed matrix is stored in the GGUF type that holds its codes and scales exactly in the
fewest bytes (`gguf/blocks.py`). Vectors are stored in float32, because runtimes expect it. An
uncompressed matrix keeps its dtype, except that a float32 matrix whose numbers are all exact in
fp16 or bf16 is stored in that dtype. `gguf/tensors.py` makes the two changes that GGUF needs: it
reorders the rows of Llama's q and k and adds 1 to Gemma's norms. A matrix that no type can hold
exactly raises UsageError, which names the layer and the most similar format that would fit.

After writing, the file is opened again. Every tensor is decoded by the reader of GGUF files (nearly
all types by the `gguf` package) and compared with the numbers of the packed model, and the
tokenizer is rebuilt from the metadata and compared.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ...base.errors import ExportFailed, UsageError
from ...models.families import Family
from ..gguf import tokenizer_writer as tokenizers
from ..gguf import types
from ..gguf.blocks import WRITTEN_TYPES, choose_type, encode, reorder_rows
from ..gguf.file import GGUFFile
from ..gguf.metadata_writer import add_metadata, read_exportable, rope_divisors
from ..gguf.stripping import exported_name
from ..gguf.tensors import (
    add_offset,
    has_offset,
    permuted_heads,
    restore_rows,
    row_permutation,
)
from ..packed.model import PackedMatrix, PackedModel
from ..tensor_progress import TensorProgress
from .base import Exporter, ExportPlan, compare, refuse

FLOAT_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
HINT = "requantize with --preset portable, or leave such layers out of the plan, or export --to hf"
# `general.file_type` of types that the gguf package has no number for.
FILE_TYPES = {"Q2_0": 41}


@dataclass(frozen=True)
class GGUFTensor:
    """How one tensor is stored: its name in the file, its storage type, and the number of heads
    whose rows are reordered (None: the rows keep their order).
    """

    gguf_name: str
    type: str
    heads: int | None


Plan = ExportPlan[GGUFTensor]


@dataclass(frozen=True)
class GGUF(Exporter[GGUFTensor]):
    """Writes one GGUF file. The plan has the name, type and row order of each tensor."""

    file_suffix: ClassVar[str | None] = ".gguf"

    def holds(self, matrix: PackedMatrix) -> str | None:
        integers = matrix.integers
        if integers is None:
            rotation = ", rotated" if matrix.stored_matrix.is_rotated else ""
            return (
                f"no GGUF type holds {matrix.stored_matrix.format!r}{rotation}; "
                "the nearest is Q4_0, Int(bits=4, group=32)"
            )
        try:
            choose_type(integers)
        except UsageError as error:
            return f"{matrix.stored_matrix.format!r}: {error}"
        return None

    def plan(self, model: PackedModel) -> Plan:
        numbers = read_exportable(model.config)
        family = numbers.family
        tensors, problems = {}, []
        for name in model.names:
            gguf_name = family.gguf_tensor(name)
            if gguf_name is None:
                raise UsageError(
                    f"GGUF has no name for {name} in {family.gguf.architecture} models; "
                    "export --to hf"
                )
            matrix = model.matrix(name)
            if matrix is not None and (reason := self.holds(matrix)) is not None:
                problems.append(f"{name}: {reason}")
                continue
            heads = permuted_heads(name, family, numbers.num_heads, numbers.num_key_heads)
            tensors[name] = GGUFTensor(gguf_name, _storage_type(model, name, matrix), heads)
        refuse(problems, HINT)
        tokenizers.check_exportable(model.tokenizer, model.path)
        exported_name(model.tokenizer, model.path.name)  # raises for tokens that no file holds
        counts = Counter(tensor.type for tensor in tensors.values())
        return ExportPlan(tensors, counts, _notes(model, tensors))

    def write(self, model: PackedModel, plan: Plan, path: Path, progress: TensorProgress) -> None:
        gguf, numbers = types.package(), read_exportable(model.config)
        with closing(gguf.GGUFWriter(path, numbers.family.gguf.architecture)) as writer:
            writer.add_name(exported_name(model.tokenizer, model.path.resolve().name))
            writer.add_quantized_by("featherweight")
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            writer.add_file_type(_file_type(plan))
            add_metadata(writer, numbers)
            tokenizers.add_tokenizer(
                writer, model.tokenizer, numbers.vocab_size, _answer_ends(model)
            )
            divisors = rope_divisors(numbers)
            for name, array in divisors.items():
                _add_info(writer, name, array.shape, "F32")
            for name, tensor in plan.tensors.items():
                _add_info(writer, tensor.gguf_name, model.shape(name), tensor.type)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            # The data, in the order of the infos above.
            for array in divisors.values():
                writer.write_tensor_data(array)
            for name in plan.tensors:
                data = _data(model, plan, name, numbers.family)
                writer.write_tensor_data(np.ascontiguousarray(data))
                progress.advance(name)

    def read_back(
        self, model: PackedModel, plan: Plan, path: Path, progress: TensorProgress
    ) -> None:
        file, numbers = GGUFFile(path), read_exportable(model.config)
        expected_names = {tensor.gguf_name for tensor in plan.tensors.values()}
        expected_names |= set(rope_divisors(numbers))
        if set(file.tensors) != expected_names or len(expected_names) < len(plan.tensors):
            raise ExportFailed(
                f"{path}: the file does not hold each tensor of the model exactly once"
            )
        for name, tensor in plan.tensors.items():
            rows = file.read(tensor.gguf_name)
            rows = rows.copy() if tensor.heads is None else restore_rows(rows, tensor.heads)
            model_tensor = _as_stored(model.read(name), name, numbers.family).float()
            compare(name, torch.from_numpy(rows), model_tensor, path)
            progress.advance(name)
        tokenizers.compare_tokenizer(file, model.tokenizer)

    def is_export(self, path: Path) -> bool:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"


def _storage_type(model: PackedModel, name: str, matrix: PackedMatrix | None) -> str:
    """The GGUF type of the tensor `name`; `matrix` is None when it is not compressed."""
    if matrix is not None:
        integers = matrix.integers
        assert integers is not None  # `holds` returned None, so the matrix has integers
        return choose_type(integers)
    dtype = model.dtype(name)
    if len(model.shape(name)) == 1 or dtype not in FLOAT_TYPES.values():
        return "F32"
    if dtype == torch.float32:
        tensor = model.read(name)
        for half_type in ("F16", "BF16"):
            if torch.equal(tensor.to(FLOAT_TYPES[half_type]).float(), tensor):
                return half_type
    return next(type_ for type_, known_dtype in FLOAT_TYPES.items() if known_dtype == dtype)


def _add_info(writer: Any, name: str, shape: tuple[int, ...], type_: str) -> None:
    storage = types.by_name(type_)
    num_bytes = storage.num_bytes(math.prod(shape))
    writer.add_tensor_info(name, shape, np.dtype(np.float32), num_bytes, storage.number)


def _data(model: PackedModel, plan: Plan, name: str, family: Family) -> np.ndarray:
    """The bytes of the tensor `name`."""
    tensor, matrix = plan.tensors[name], model.matrix(name)
    order = None
    if tensor.heads is not None:
        order = row_permutation(model.shape(name)[0], tensor.heads)
    if matrix is not None:
        integers = matrix.integers
        assert integers is not None  # only matrices with integers are in the plan
        return encode(integers if order is None else reorder_rows(integers, order), tensor.type)
    values = _as_stored(model.read(name), name, family)
    values = (values if order is None else values[order]).to(FLOAT_TYPES[tensor.type])
    return values.contiguous().view(torch.uint8).numpy()


def _as_stored(values: torch.Tensor, name: str, family: Family) -> torch.Tensor:
    return add_offset(values, family) if has_offset(name, family) else values


def _answer_ends(model: PackedModel) -> list[int]:
    """Ids that end an answer: those of generation_config.json, else that of the tokenizer."""
    path = model.path / "generation_config.json"
    settings = json.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
    ids = settings if isinstance(settings, list) else [settings, model.tokenizer.eos_token_id]
    return list(dict.fromkeys(id_ for id_ in ids if isinstance(id_, int)))


def _file_type(plan: Plan) -> int:
    """The number of `general.file_type`, which runtimes print: the type of most matrices."""
    counts = Counter(
        tensor.type for tensor in plan.tensors.values() if tensor.type in WRITTEN_TYPES
    )
    commonest = counts.most_common(1)[0][0] if counts else "F16"
    if commonest in FILE_TYPES:
        return FILE_TYPES[commonest]
    return int(types.package().LlamaFileType[f"MOSTLY_{commonest}"])


def _notes(model: PackedModel, tensors: Mapping[str, GGUFTensor]) -> list[str]:
    """The storage type of each format, and the size of the matrices that are not compressed."""
    num_uncompressed, num_bytes = 0, 0
    counts: Counter[tuple[str, str]] = Counter()
    for name, tensor in tensors.items():
        matrix = model.description.layers.get(name.removesuffix(".weight"))
        if matrix is not None and name.endswith(".weight"):
            counts[repr(matrix.format), tensor.type] += 1
        elif len(model.shape(name)) > 1:
            num_uncompressed += 1
            num_bytes += math.prod(model.shape(name)) * FLOAT_TYPES[tensor.type].itemsize
    notes = [
        f"{num} matrices of {format} in {type_}, "
        f"{types.by_name(type_).bits_per_weight:g} bits a weight"
        for (format, type_), num in sorted(counts.items())
    ]
    if any(type_ == "Q2_0" for _, type_ in counts):
        notes.append("Q2_0 is read by llama.cpp from the middle of 2026 on")
    if num_uncompressed:
        notes.append(
            f"{num_uncompressed} uncompressed matrices take {num_bytes / 1e6:.1f} MB; "
            "quantized with --set plan.tables=Int(bits=8), tables go into Q8_0 (and tied ones not "
            "into compressed-tensors)"
        )
    return notes
