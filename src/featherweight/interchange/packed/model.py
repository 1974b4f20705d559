"""A packed folder seen as the uncompressed model: its tensors under the names that the model has
without compression.

Exports start from a `PackedModel`. It checks the checksums of the files and then reads one tensor
at a time. `names` lists every tensor of the uncompressed model once; a tied head is not listed,
because it is the same tensor as the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...base.errors import BadInput
from ...models.config import CONFIG
from ...models.structure import linears, shared_inputs
from ...models.tensors import TensorFolder
from ...quantization.formats.base import Format, Integers, QWeight
from ...quantization.layers import CompressedLinear
from ...quantization.layouts.description import StoredMatrix
from ..pretrained import build_skeleton, make_config
from ..source import Source
from ..tokenizer_check import load_tokenizer
from . import description as descriptions
from .verify import check_stored, check_sums


@dataclass(frozen=True)
class PackedMatrix:
    """One compressed matrix of a packed model.

    `name`: its module. `dtype`: its dtype in the uncompressed model. `is_table`: whether it is the
    matrix of an embedding, which a tied head may share.
    """

    name: str
    stored_matrix: StoredMatrix[Format]
    weight: QWeight
    dtype: torch.dtype
    is_table: bool

    @cached_property
    def integers(self) -> Integers | None:
        """Its codes as scaled integers; None for other formats and for a rotated matrix."""
        if self.stored_matrix.is_rotated:
            return None
        return self.stored_matrix.format.integers(self.weight)


class PackedModel:
    """The model in the packed folder at `path`.

    Raises BadInput when the folder is not one that featherweight packed, or is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.source = Source(str(path), Path(path))
        self.path = self.source.path
        self.settings: dict[str, Any] = dict(self.source.config)
        self.description = descriptions.read(
            self.settings.pop("quantization_config", None), str(self.path / CONFIG)
        )
        check_sums(self.tensors.files, self.description)
        check_stored(self.tensors, self.description)

    @property
    def tensors(self) -> TensorFolder:
        """The tensors as the folder stores them."""
        return self.source.weights

    @cached_property
    def config(self) -> Any:
        """The ordinary model's transformers configuration."""
        return make_config(self.settings, self.path / CONFIG)

    @cached_property
    def skeleton(self) -> nn.Module:
        """The ordinary model without its numbers (on meta)."""
        return build_skeleton(self.config, self.path)

    @cached_property
    def tokenizer(self) -> Any:
        """transformers' tokenizer of the folder. Raises BadInput when it cannot be loaded."""
        return load_tokenizer(self.path)

    @cached_property
    def names(self) -> list[str]:
        """Every tensor of the uncompressed model once.

        Raises BadInput when the folder lacks one of them or holds another one.
        """
        tied_names = getattr(self.skeleton, "all_tied_weights_keys", None) or {}
        names = [name for name in self.skeleton.state_dict() if name not in tied_names]
        stored_names = {
            f"{module}.{name}"
            for module, matrix in self.description.layers.items()
            for name in matrix.stored()
        }
        folder_names = {name for name in self.tensors.names() if name not in stored_names}
        if missing_names := sorted(set(names) - folder_names):
            raise BadInput(f"{self.path} lacks tensor {missing_names[0]}")
        if foreign_names := sorted(folder_names - set(names)):
            raise BadInput(
                f"{self.path} holds tensor {foreign_names[0]}, "
                f"which {self.settings['model_type']} models have not"
            )
        return names

    @cached_property
    def linears(self) -> list[str]:
        """Names of all linear layers of the ordinary model, a tied head included."""
        return list(linears(self.skeleton))

    def shared_inputs(self) -> list[tuple[str, ...]]:
        """Groups of linear layers with the same input (q/k/v, gate/up), which runtimes fuse into
        one matrix.
        """
        return shared_inputs(self.skeleton)

    def matrix(self, name: str) -> PackedMatrix | None:
        """The compressed matrix of the tensor `name` (it ends in .weight); None for a tensor that
        is not compressed.
        """
        module, _, kind = name.rpartition(".")
        if kind != "weight" or module not in self.description.layers:
            return None
        matrix = self.description.layers[module]
        tensors = {
            part: self.tensors.read(f"{module}.{part}")
            for part in matrix.format.stored(matrix.shape)
        }
        weight = QWeight(matrix.format, matrix.shape, tensors)
        return PackedMatrix(module, matrix, weight, self.dtype(name), module not in self.linears)

    def dtype(self, name: str) -> torch.dtype:
        """The dtype that the ordinary model holds `name` in."""
        return self.tensors.dtype(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that `name` has in the ordinary model."""
        matrix = self.description.layers.get(name.removesuffix(".weight"))
        is_compressed = matrix is not None and name.endswith(".weight")
        return matrix.shape if matrix and is_compressed else self.tensors.shape(name)

    def read(self, name: str) -> Tensor:
        """The numbers of the tensor `name`. A compressed matrix is decoded to float32, and its
        rotations are undone.
        """
        matrix = self.matrix(name)
        if matrix is None:
            return self.tensors.read(name)
        stored_matrix = matrix.stored_matrix
        if not stored_matrix.is_rotated:
            return matrix.weight.dense()
        rows, columns = stored_matrix.shape
        linear = CompressedLinear(
            columns,
            rows,
            stored_matrix.format,
            input_signs=stored_matrix.input_rotation,
            output_rotation=stored_matrix.output_rotation,
        )
        linear.fill(
            {part: self.tensors.read(f"{matrix.name}.{part}") for part in linear.stored_names()}
        )
        return linear.effective()
