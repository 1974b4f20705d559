"""A packed model as one GGUF file, code for code: the bytes that llama.cpp and its relatives read.

Each compressed matrix goes into the narrowest storage type that holds its codes and scales exactly
(`gguf_blocks`); vectors are float32, as runtimes expect, and other matrices keep their dtype
(float32 ones that fp16 or bf16 hold exactly are stored so). Llama's q and k change the order of
their rows, codes and scales together; Gemma's norms are stored as the 1 + w that is computed with.
What no type holds is refused, naming the layers and what to ask for instead.

Then the file is opened again, every tensor decoded by the `gguf` package and compared with what the
packed model's own decoder says, and the tokenizer rebuilt and compared. One matrix is in memory at
a time.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.errors import ExportFailed, UsageError
from ...base.events import Event, Listener, silent
from ..gguf import tokenizer_writer as tokenizers
from ..gguf.blocks import WIDTH, permuted, rows_of, type_of
from ..gguf.convert import ROPE_FACTORS, halves_apart, interleaved_heads
from ..gguf.file import GGUFFile, package
from ..gguf.metadata import Target, add_metadata, rope_factors, target_of
from .base import ExportResult, PackedModel, appearing, compare, refuse, rotated

STAGE = "export"
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
HINT = "requantize with --preset portable, or leave such layers out of the plan, or export --to hf"


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of the file: what the model and the file call it, its storage type, and heads to
    interleave.
    """

    name: str
    stored: str
    type: str
    heads: int | None


def export_gguf(
    model: PackedModel, out: Path, overwrite: bool = False, listener: Listener = silent
) -> ExportResult:
    """Write `model` to the file `out`; it appears complete and compared, or not at all.

    Raises UsageError for what GGUF cannot hold exactly, ExportFailed when the file read again is
    not the model.
    """
    if out.suffix != ".gguf":
        raise UsageError(f"--to gguf writes one file: name it like {out / 'model.gguf'}")
    target = target_of(model.config)
    tensor_plans = plan_tensors(model, target)
    tokenizer = tokenizers.read(model.path)
    with appearing(out, overwrite) as path:
        _write(path, model, target, tensor_plans, tokenizer, listener)
        _compare(path, model, target, tensor_plans, listener)
        tokenizers.compare_tokenizer(GGUFFile(path), tokenizer)
        num_bytes = path.stat().st_size
    return ExportResult(
        out,
        num_bytes,
        dict(Counter(tensor_plan.type for tensor_plan in tensor_plans)),
        len(tensor_plans),
        _notes(model, tensor_plans),
    )


def plan_tensors(model: PackedModel, target: Target) -> list[TensorPlan]:
    """Name and storage type of every tensor of the model.

    Raises UsageError naming what has no exact type.
    """
    gguf = package()
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == target.name)
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    tensor_plans, problems = [], []
    for name in model.names:
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored is None:
            raise UsageError(f"GGUF has no name for {name} in {target.name} models; export --to hf")
        heads = interleaved_heads(name, model.config) if target.interleaved else None
        try:
            tensor_plans.append(TensorPlan(name, stored, _type(model, name), heads))
        except UsageError as error:
            problems.append(str(error))
    refuse(problems, HINT)
    return tensor_plans


def _type(model: PackedModel, name: str) -> str:
    layer = model.layer(name)
    if layer is None:
        return _plain_type(model, name)
    weight = model.qweight(name)
    matrix = None if rotated(layer) else layer.format.integers(weight)
    if matrix is None:
        turned = ", rotated" if rotated(layer) else ""
        raise UsageError(
            f"{name}: no GGUF type holds {layer.format!r}{turned}; the nearest is Q4_0, Int(bits=4, group=32)"
        )
    try:
        return type_of(matrix)
    except UsageError as error:
        raise UsageError(f"{name}, {layer.format!r}: {error}") from error


def _plain_type(model: PackedModel, name: str) -> str:
    dtype = model.dtype(name)
    if len(model.shape(name)) == 1 or dtype not in PLAIN.values():
        return "F32"
    if dtype == torch.float32:
        tensor = model.read(name)
        for narrow in ("F16", "BF16"):
            if torch.equal(tensor.to(PLAIN[narrow]).float(), tensor):
                return narrow
    return next(kind for kind, known in PLAIN.items() if known == dtype)


def _write(
    path: Path,
    model: PackedModel,
    target: Target,
    tensor_plans: list[TensorPlan],
    tokenizer: Any,
    listener: Listener,
) -> None:
    gguf = package()
    with closing(gguf.GGUFWriter(path, target.name)) as writer:
        writer.add_name(model.path.resolve().name)
        writer.add_quantized_by("featherweight")
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_file_type(_file_type(tensor_plans))
        add_metadata(writer, model.config, target)
        tokenizers.add_tokenizer(
            writer, tokenizer, model.config.vocab_size, _ends(model, tokenizer)
        )
        tensors = _tensors(model, target, tensor_plans)
        for name, kind, shape in _infos(model, tensor_plans):
            type_ = gguf.GGMLQuantizationType[kind]
            block, size = gguf.GGML_QUANT_SIZES[type_]
            num_bytes = math.prod(shape) // block * size
            writer.add_tensor_info(name, shape, np.dtype(np.float32), num_bytes, type_)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, data in enumerate(tensors):
            writer.write_tensor_data(np.ascontiguousarray(data))
            listener(Event(STAGE, done + 1, 2 * len(tensor_plans), message=path.name))


def _infos(
    model: PackedModel, tensor_plans: list[TensorPlan]
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    factors = rope_factors(model.config)
    if factors is not None:
        yield ROPE_FACTORS, "F32", factors.shape
    for tensor_plan in tensor_plans:
        yield tensor_plan.stored, tensor_plan.type, model.shape(tensor_plan.name)


def _tensors(
    model: PackedModel, target: Target, tensor_plans: list[TensorPlan]
) -> Iterator[np.ndarray]:
    """The bytes of every tensor, in the order of `_infos`."""
    factors = rope_factors(model.config)
    if factors is not None:
        yield factors
    for tensor_plan in tensor_plans:
        order = _order(model.shape(tensor_plan.name)[0], tensor_plan.heads)
        layer = model.layer(tensor_plan.name)
        if layer is not None:
            matrix = layer.format.integers(model.qweight(tensor_plan.name))
            assert matrix is not None  # planned so
            yield rows_of(matrix if order is None else permuted(matrix, order), tensor_plan.type)
            continue
        tensor = _computed_with(model.read(tensor_plan.name), tensor_plan.name, target)
        tensor = (tensor if order is None else tensor[order]).to(PLAIN[tensor_plan.type])
        yield tensor.contiguous().view(torch.uint8).numpy()


def _computed_with(tensor: Tensor, name: str, target: Target) -> Tensor:
    """The numbers that the model computes with:

    Gemma's norms multiply by 1 + w, added in float32.
    """
    return tensor.float() + 1 if target.shifted and name.endswith("norm.weight") else tensor


def _order(rows: int, heads: int | None) -> Tensor | None:
    """Rows `(head, half, pair)` in the order `(head, pair, half)`; None for tensors that keep
    theirs.
    """
    return (
        None if heads is None else torch.arange(rows).view(heads, 2, -1).transpose(1, 2).reshape(-1)
    )


def _compare(
    path: Path,
    model: PackedModel,
    target: Target,
    tensor_plans: list[TensorPlan],
    listener: Listener,
) -> None:
    file = GGUFFile(path)
    factors = rope_factors(model.config)
    expected = {tensor_plan.stored for tensor_plan in tensor_plans} | (
        set() if factors is None else {ROPE_FACTORS}
    )
    if set(file.entries) != expected or len(expected) < len(tensor_plans):
        raise ExportFailed(f"{path}: the file does not hold each tensor of the model exactly once")
    for done, tensor_plan in enumerate(tensor_plans, 1):
        values = file.read(tensor_plan.stored)
        found = torch.from_numpy(
            values.copy() if tensor_plan.heads is None else halves_apart(values, tensor_plan.heads)
        )
        compare(
            tensor_plan.name,
            found,
            _computed_with(model.read(tensor_plan.name), tensor_plan.name, target).float(),
            path,
        )
        listener(
            Event(STAGE, len(tensor_plans) + done, 2 * len(tensor_plans), message=tensor_plan.name)
        )


def _ends(model: PackedModel, tokenizer: Any) -> list[int]:
    """Ids that end an answer: the generation settings', else the tokenizer's."""
    settings = model.path / "generation_config.json"
    given = json.loads(settings.read_bytes()).get("eos_token_id") if settings.is_file() else None
    ids = given if isinstance(given, list) else [given, tokenizer.eos_token_id]
    return list(dict.fromkeys(id_ for id_ in ids if isinstance(id_, int)))


def _file_type(tensor_plans: list[TensorPlan]) -> int:
    """What runtimes print: the type of most matrices."""
    types = Counter(tensor_plan.type for tensor_plan in tensor_plans if tensor_plan.type in WIDTH)
    most = types.most_common(1)[0][0] if types else "F16"
    return int(package().LlamaFileType[f"MOSTLY_{most}"])


def _notes(model: PackedModel, tensor_plans: list[TensorPlan]) -> list[str]:
    """What the bytes of the file owe to GGUF's types rather than to the codes."""
    notes = []
    held = Counter(
        (repr(layer.format), tensor_plan.type)
        for tensor_plan in tensor_plans
        if (layer := model.layer(tensor_plan.name)) is not None
    )
    for (format, kind), num in sorted(held.items()):
        block, size = package().GGML_QUANT_SIZES[package().GGMLQuantizationType[kind]]
        notes.append(f"{num} matrices of {format} in {kind}, {8 * size / block:g} bits a weight")
    plain = [
        tensor_plan
        for tensor_plan in tensor_plans
        if model.layer(tensor_plan.name) is None and len(model.shape(tensor_plan.name)) > 1
    ]
    num_bytes = sum(
        math.prod(model.shape(tensor_plan.name)) * PLAIN[tensor_plan.type].itemsize
        for tensor_plan in plain
    )
    if plain:
        notes.append(
            f"{len(plain)} uncompressed matrices take {num_bytes / 1e6:.1f} MB; "
            "quantized with --set plan.tables=Int(bits=8), tables go into Q8_0 (and tied ones not into compressed-tensors)"
        )
    return notes
