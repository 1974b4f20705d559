"""From a model folder to the native engine, without torch: which tensor is which weight, and what
the family computes with it.

`open_runtime(folder)` reads config.json and maps the weight files; nothing is repacked, and only
norms are copied. The files are not trusted: a missing tensor, a wrong shape or a scale that is not
finite raises BadInput. What the native engine does not run (other families, other rotary scalings,
formats without a kernel) raises Unsupported with the reason, and callers may then use the PyTorch
engine. The SHA-256 sums in config.json are not recomputed at every start (`fw doctor` and `fw.load`
do that): a flipped bit in a code gives a wrong weight, never a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.errors import BadInput, Unsupported
from ...models import families
from ...models.config import PACKED, folder_fingerprint, read_config
from ...models.mapped import MappedFolder, MappedTensor
from ...quantization.layouts import Layout
from ...quantization.layouts.description import Description, read_description
from .engine import NativeEngine
from .matrices import read_matrix
from .weights import LayerWeights, MatrixWeights, ModelWeights

FLOAT_KINDS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# The bits of the exponent, all of which are set in numbers that are not finite.
EXPONENTS = {
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
# Numbers whose bits are compared at once.
CHUNK = 1 << 20
# The matrices whose bias one key of a configuration switches on, by that which families name.
BIASES = {"query": ("query", "key", "value", "out"), "gate": ("gate", "up", "down")}
# Old checkpoints hold the rotary frequencies, which follow from the configuration.
COMPUTED_BUFFER = "rotary_emb.inv_freq"
# transformers' names of activations -> the native library's.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu_squared",
}


def open_runtime(
    folder: Path | str,
    *,
    int8_activations: bool = True,
    threads: int | None = None,
    isa: str | None = None,
) -> NativeEngine:
    """The native engine for a local model folder, packed or in floating point.

    Args: folder; int8_activations, threads and isa as in `NativeEngine`. Raises BadInput for a
    broken folder, Unsupported for a model that only the PyTorch engine runs.
    """
    return NativeEngine(
        read_model(Path(folder)), int8_activations=int8_activations, threads=threads, isa=isa
    )


def read_model(folder: Path) -> ModelWeights:
    """The weights of a local model folder, as views of the mapped files.

    Raises as `open_runtime` does.
    """
    config = read_config(folder)
    description = _read_description(config, folder)
    numbers = _read_hyperparameters(config)
    mapped = MappedFolder(folder)
    reader = _Reader(mapped, description, str(folder))
    ropes = {kind: numbers.rope(kind) for kind in sorted(set(numbers.layer_types))}
    rope = _common_rope(ropes)
    layers = _read_layers(reader, numbers, ropes)
    table_shape = (numbers.vocab_size, numbers.hidden)
    embedding = reader.matrix(families.EMBEDDING.transformers, table_shape)
    head_name = families.HEAD.transformers
    is_tied = description.tied_head is not None or (
        numbers.is_tied and f"{head_name}.weight" not in mapped.tensors
    )
    head = None if is_tied else reader.matrix(head_name, table_shape)
    final_norm = reader.norm(
        families.FINAL_NORM.transformers, numbers.hidden, numbers.family.norm_offset
    )
    reader.check_all_read()
    bits_per_weight = 8 * mapped.num_bytes / max(1, reader.num_weights)
    return ModelWeights(
        hidden=numbers.hidden,
        vocab_size=numbers.vocab_size,
        num_heads=numbers.num_heads,
        num_key_heads=numbers.num_key_heads,
        head_width=numbers.head_width,
        rotary_width=rope.rotary_width(numbers.head_width),
        context=min(numbers.context, rope.num_positions or numbers.context),
        full_context=numbers.context,
        layers=layers,
        embedding=embedding,
        head=head,
        final_norm=final_norm,
        epsilon=numbers.epsilon,
        attention_scale=numbers.attention_scale,
        activation=ACTIVATIONS[numbers.activation],
        attention_softcap=numbers.attention_softcap,
        final_softcap=numbers.final_softcap,
        embedding_scale=numbers.embedding_scale,
        rope_scale=rope.attention_factor,
        residual_scale=numbers.residual_scale,
        logit_divisor=numbers.logit_divisor,
        joint_head_norms=numbers.family.has_joint_head_norms,
        fingerprint=folder_fingerprint(folder),
        description=f"{folder.name}, {bits_per_weight:.2f} bits a weight",
        num_bytes=mapped.num_bytes,
        check=mapped.check_unchanged,
        close=mapped.close,
    )


def _read_description(config: Mapping[str, Any], folder: Path) -> Description[Layout]:
    """The formats of the quantized matrices; Unsupported for those of another program."""
    quantization = config.get("quantization_config")
    if quantization is None:
        return Description({})
    if not isinstance(quantization, Mapping) or quantization.get("quant_method") != PACKED:
        raise Unsupported(
            f"{folder} is quantized by another program, which the native engine does not read"
        )
    return read_description(quantization, str(folder))


def _read_hyperparameters(config: Mapping[str, Any]) -> families.Hyperparameters:
    """The numbers of the model; Unsupported for what the native engine does not compute."""
    family = families.find(config.get("model_type"))
    if family is None:
        names = ", ".join(record.model_type for record in families.FAMILIES)
        raise Unsupported(
            f"models of type {config.get('model_type')!r} run on the PyTorch engine; "
            f"the native one runs {names}"
        )
    numbers = families.read_hyperparameters(config, family)
    if numbers.activation not in ACTIVATIONS:
        raise Unsupported(
            f"the activation {numbers.activation!r} is not one that the native engine knows"
        )
    if numbers.is_bidirectional:
        raise Unsupported("attention to later tokens is not what the native engine does")
    return numbers


def _common_rope(ropes: Mapping[str, families.Rope]) -> families.Rope:
    """One of the rotary settings; all must turn as many numbers by the same factor.

    Raises Unsupported when they do not.
    """
    first, *others = ropes.values()
    if any(
        (rope.turned_share, rope.attention_factor, rope.num_positions)
        != (first.turned_share, first.attention_factor, first.num_positions)
        for rope in others
    ):
        raise Unsupported("the native engine scales the rotary positions of all layers alike")
    return first


def _read_layers(
    reader: _Reader, numbers: families.Hyperparameters, ropes: Mapping[str, families.Rope]
) -> tuple[LayerWeights, ...]:
    frequencies = {kind: rope.frequencies(numbers.head_width) for kind, rope in ropes.items()}
    return tuple(
        _read_layer(reader, numbers, index, kind, frequencies[kind])
        for index, kind in enumerate(numbers.layer_types)
    )


def _read_layer(
    reader: _Reader,
    numbers: families.Hyperparameters,
    index: int,
    kind: str,
    frequencies: NDArray[Any],
) -> LayerWeights:
    block, family = f"model.layers.{index}", numbers.family
    hidden, width, ffn = numbers.hidden, numbers.head_width, numbers.ffn
    queries, keys = numbers.num_heads * width, numbers.num_key_heads * width
    shapes = {
        "query": (queries if "key" in family.matrices else queries + 2 * keys, hidden),
        "key": (keys, hidden),
        "value": (keys, hidden),
        "out": (hidden, queries),
        "gate": (ffn if "up" in family.matrices else 2 * ffn, hidden),
        "up": (ffn, hidden),
        "down": (hidden, ffn),
    }
    fields: dict[str, Any] = {
        field: reader.matrix(f"{block}.{names.transformers}", shapes[field])
        for field, names in family.matrices.items()
    }
    for field in sorted(_biases(numbers)):
        if field in fields and fields[field].bias is None:
            raise BadInput(
                f"the folder has no tensor {block}.{family.matrices[field].transformers}.bias, "
                f"which {family.model_type} models have"
            )
    norm_widths = {"query_norm": queries, "key_norm": keys} if family.has_joint_head_norms else {}
    fields |= {
        field: reader.norm(
            f"{block}.{names.transformers}", norm_widths.get(field, norm_width), family.norm_offset
        )
        for group, norm_width in ((family.norms, hidden), (family.head_norms, width))
        for field, names in group.items()
    }
    return LayerWeights(
        **fields,
        frequencies=frequencies,
        window=numbers.window if kind == families.SLIDING_ATTENTION else 0,
    )


def _biases(numbers: families.Hyperparameters) -> set[str]:
    """The matrices that have a bias in a model of this family and configuration."""
    flags = numbers.family.bias_flags.items()
    switched_on = (BIASES[matrix] for key, matrix in flags if numbers.config.get(key))
    return {*numbers.family.biases, *(field for group in switched_on for field in group)}


class _Reader:
    """Matrices and norms by module name, each checked against the shape that the configuration
    implies.
    """

    def __init__(self, files: MappedFolder, description: Description[Layout], folder: str) -> None:
        self._tensors, self._layers, self._folder = files.tensors, description.layers, folder
        self.num_weights = 0
        self._read_names: set[str] = set()

    def matrix(self, name: str, shape: tuple[int, int]) -> MatrixWeights:
        self.num_weights += shape[0] * shape[1]
        bias = (
            self._numbers(f"{name}.bias", (shape[0],)) if f"{name}.bias" in self._tensors else None
        )
        if name in self._layers:
            if self._layers[name].shape != shape:
                raise BadInput(f"{self._folder}: the description of {name} does not fit this model")
            stored_names = (f"{name}.{key}" for key in (*self._layers[name].stored(), "weight"))
            self._read_names.update(stored_names)
            return read_matrix(name, self._layers[name], self._tensors, self._folder, bias)
        tensor = self._tensor(f"{name}.weight", shape)
        if tensor.dtype not in FLOAT_KINDS:
            raise Unsupported(
                f"{name} is stored as {tensor.dtype}, which the native engine does not read"
            )
        self._check_finite(name, tensor)
        return MatrixWeights(FLOAT_KINDS[tensor.dtype], shape, tensor.data, bias=bias)

    def norm(self, name: str, width: int, offset: float) -> NDArray[np.float32]:
        return (self._numbers(f"{name}.weight", (width,)) + np.float32(offset)).astype(np.float32)

    def _numbers(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        tensor = self._tensor(name, shape)
        if tensor.dtype == "BF16":
            numbers = (tensor.array().astype(np.uint32) << 16).view(np.float32)
        elif tensor.dtype in ("F32", "F16"):
            numbers = tensor.array().astype(np.float32)
        else:
            raise BadInput(f"{self._folder}: {name} is {tensor.dtype}, not a floating-point tensor")
        if not np.isfinite(numbers).all():
            raise BadInput(f"{self._folder}: {name} holds numbers that are not finite")
        return numbers

    def _check_finite(self, name: str, tensor: MappedTensor) -> None:
        """Raise BadInput for NaN and infinity, which rounding to int8 would turn into numbers."""
        kind, exponent = EXPONENTS[tensor.dtype]
        bits = tensor.data.view(kind)
        for start in range(0, len(bits), CHUNK):
            # No exponent is larger than that of such numbers.
            if (bits[start : start + CHUNK] & exponent).max() == exponent:
                raise BadInput(
                    f"{self._folder}: {name} holds numbers that are not finite; the checkpoint is "
                    "damaged"
                )

    def check_all_read(self) -> None:
        """Raise Unsupported when the folder holds a tensor that was not read: the model computes
        something that its configuration does not say, or that the native engine does not know.
        """
        names = sorted(
            name
            for name in set(self._tensors) - self._read_names
            if not name.endswith(COMPUTED_BUFFER)
        )
        if names:
            raise Unsupported(
                f"{self._folder} holds tensors that the native engine does not read, such as "
                f"{names[0]!r}"
            )

    def _tensor(self, name: str, shape: tuple[int, ...]) -> MappedTensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise BadInput(f"{self._folder} has no tensor {name}")
        self._read_names.add(name)
        if tensor.shape != shape:
            raise BadInput(
                f"{self._folder}: {name} is {tensor.shape}, its configuration says {shape}"
            )
        return tensor
