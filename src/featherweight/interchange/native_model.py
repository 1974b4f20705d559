"""From a model folder to the native engine, without torch: what each tensor is, and what the family computes with it.

`open_runtime(folder)` reads config.json and maps the weights; nothing is repacked and nothing is copied but norms.
Everything read here is untrusted: a missing tensor, a wrong shape or a scale that is not finite is BadInput. What the
native engine does not run (other families, other rotary scalings, codes without byte arithmetic) is `Unsupported`,
with the reason, and the PyTorch engine takes over where the caller allows it. The SHA-256 sums of config.json are not
recomputed on every start (`fw doctor` and `fw.load` do that): a flipped bit in a code is a wrong weight, never a crash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.errors import BadInput
from ..inference.described import Layer, Matrix, Model, Unsupported
from ..inference.runtime import Runtime
from ..models.mapped import MappedFolder
from . import families, stored_formats
from .locating import CONFIG, read_config

METHOD = "featherweight"
PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def open_runtime(
    folder: Path | str, *, whole_numbers: bool = True, threads: int | None = None, isa: str | None = None
) -> Runtime:
    """The native engine for a local model folder, packed or plain.

    Raises BadInput for a broken folder, Unsupported for what only the PyTorch engine runs.
    """
    return Runtime(read_model(Path(folder)), whole_numbers=whole_numbers, threads=threads, isa=isa)


def read_model(folder: Path) -> Model:
    """What the native library is to run; the weights are views of the mapped files."""
    config = read_config(folder)
    described = config.get("quantization_config")
    if described is not None and (not isinstance(described, Mapping) or described.get("quant_method") != METHOD):
        raise Unsupported(f"{folder} is quantized by another program, which the native engine does not read")
    family = families.of(config)
    mapped = MappedFolder(folder)
    reader = _Reader(mapped, described or {}, str(folder))
    frequencies = {kind: family.frequencies(kind) for kind in set(family.layer_types)}
    layers = tuple(
        _layer(reader, family, index, kind, frequencies[kind]) for index, kind in enumerate(family.layer_types)
    )
    embedding = reader.matrix("model.embed_tokens", (family.vocab_size, family.hidden))
    tied = reader.tied_head is not None or (family.tied and "lm_head.weight" not in mapped.tensors)
    head = None if tied else reader.matrix("lm_head", (family.vocab_size, family.hidden))
    digest = hashlib.sha256((folder / CONFIG).read_bytes() + mapped.identity().encode()).hexdigest()
    return Model(
        hidden=family.hidden,
        vocab_size=family.vocab_size,
        num_heads=family.num_heads,
        num_key_heads=family.num_key_heads,
        head_width=family.head_width,
        context=family.context,
        layers=layers,
        embedding=embedding,
        head=head,
        final_norm=reader.norm("model.norm", family.hidden, family.norm_offset),
        epsilon=family.epsilon,
        attention_scale=family.attention_scale,
        activation=family.activation,
        attention_softcap=family.attention_softcap,
        final_softcap=family.final_softcap,
        embedding_scale=family.embedding_scale,
        fingerprint=digest[:32],
        description=f"{folder.name}, {8 * mapped.num_bytes / max(1, reader.num_weights):.2f} bits a weight",
        num_bytes=mapped.num_bytes,
        check=mapped.check_unchanged,
        close=mapped.close,
    )


def _layer(reader: _Reader, family: families.Family, index: int, kind: str, frequencies: NDArray[Any]) -> Layer:
    block, attention, mlp = (f"model.layers.{index}{part}" for part in ("", ".self_attn", ".mlp"))
    queries, keys = family.num_heads * family.head_width, family.num_key_heads * family.head_width
    hidden, offset = family.hidden, family.norm_offset
    norm = {field: reader.norm(f"{block}.{name}", hidden, offset) for field, name in family.norms.items()}
    if family.head_norms:
        norm |= {
            field: reader.norm(f"{attention}.{name}", family.head_width, offset)
            for field, name in (("query_norm", "q_norm"), ("key_norm", "k_norm"))
        }
    return Layer(
        query=reader.matrix(f"{attention}.q_proj", (queries, hidden)),
        key=reader.matrix(f"{attention}.k_proj", (keys, hidden)),
        value=reader.matrix(f"{attention}.v_proj", (keys, hidden)),
        out=reader.matrix(f"{attention}.o_proj", (hidden, queries)),
        gate=reader.matrix(f"{mlp}.gate_proj", (family.ffn, hidden)),
        up=reader.matrix(f"{mlp}.up_proj", (family.ffn, hidden)),
        down=reader.matrix(f"{mlp}.down_proj", (hidden, family.ffn)),
        frequencies=frequencies,
        window=family.window if kind == "sliding_attention" else 0,
        **norm,
    )


class _Reader:
    """Matrices and norms by module name, each checked against its description."""

    def __init__(self, mapped: MappedFolder, described: Mapping[str, Any], where: str) -> None:
        self._tensors, self._where = mapped.tensors, where
        if described:
            stored_formats.check(described, where)
        self._layers: Mapping[str, Any] = described.get("layers", {})
        self._codes = stored_formats.code_tables(described, where)
        self.tied_head = described.get("tied_head")
        self.num_weights = 0

    def matrix(self, name: str, shape: tuple[int, int]) -> Matrix:
        self.num_weights += shape[0] * shape[1]
        bias = self._tensors.get(f"{name}.bias")
        extra: dict[str, Any] = {"bias": self._numbers(f"{name}.bias", (shape[0],))} if bias is not None else {}
        if name in self._layers:
            return stored_formats.matrix(
                name, shape, self._layers[name], self._codes, self._tensors, self._where, **extra
            )
        stored = self._get(f"{name}.weight", shape)
        if stored.dtype not in PLAIN:
            raise Unsupported(f"{name} is stored as {stored.dtype}, which the native engine does not read")
        return Matrix(PLAIN[stored.dtype], shape, stored.data, **extra)

    def norm(self, name: str, width: int, offset: float) -> NDArray[np.float32]:
        return (self._numbers(f"{name}.weight", (width,)) + np.float32(offset)).astype(np.float32)

    def _numbers(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        stored = self._get(name, shape)
        if stored.dtype == "BF16":
            numbers = (stored.array().astype(np.uint32) << 16).view(np.float32)
        elif stored.dtype in ("F32", "F16"):
            numbers = stored.array().astype(np.float32)
        else:
            raise BadInput(f"{self._where}: {name} is {stored.dtype}, not a floating-point tensor")
        if not np.isfinite(numbers).all():
            raise BadInput(f"{self._where}: {name} holds numbers that are not finite")
        return numbers

    def _get(self, name: str, shape: tuple[int, ...]) -> Any:
        stored = self._tensors.get(name)
        if stored is None:
            raise BadInput(f"{self._where} has no tensor {name}")
        if stored.shape != shape:
            raise BadInput(f"{self._where}: {name} is {stored.shape}, its configuration says {shape}")
        return stored
