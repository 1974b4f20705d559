"""What every export shares: the packed model it reads, the account of its tensors, and what came of
it.

An export maps codes to another program's bytes and never rounds anew. `PackedModel` gives the
tensors of a packed folder one at a time, checked against their sums; `names` is the account, every
tensor that the ordinary model has: an exporter must write each exactly once (a tied head is its
table's second name). Afterwards it reads the file again, decodes it without the code that wrote it,
and compares every number; what differs is deleted (`compare`, `appearing`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...base.errors import BadInput, ExportFailed, UsageError
from ...base.files import sync_folder
from ...models.config import CONFIG
from ...models.structure import linears, shared_inputs
from ...models.tensors import TensorFolder
from ...quantization.formats.base import QWeight
from ...quantization.layers import CompressedLinear
from ..packed import description as descriptions
from ..packed.description import StoredMatrix
from ..packed.verify import check_stored, check_sums

SHOWN = 3


@dataclass(frozen=True)
class ExportResult:
    """What was written: where, how large, how many tensors of each storage type, and what a reader
    should know.
    """

    path: Path
    file_bytes: int
    types: dict[str, int]
    num_tensors: int
    notes: list[str] = field(default_factory=list)


class PackedModel:
    """The packed folder at `path`: its tensors by the names that the ordinary model gives them.

    Raises BadInput when the folder is not one that featherweight packed, or is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        config = self.path / CONFIG
        try:
            self.settings: dict[str, Any] = json.loads(config.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(
                f"{config} cannot be read: {error}; give a folder that quantize made"
            ) from error
        if not isinstance(self.settings, dict):
            raise BadInput(f"{config} is not a JSON object")
        self.description = descriptions.read(
            self.settings.pop("quantization_config", None), str(config)
        )
        self.tensors = TensorFolder(self.path)
        check_sums(self.tensors.files, self.description)
        check_stored(self.tensors, self.description)

    @cached_property
    def config(self) -> Any:
        """The ordinary model's transformers configuration."""
        from transformers import AutoConfig

        settings = dict(self.settings)
        try:
            return AutoConfig.for_model(settings.pop("model_type"), **settings)
        except Exception as error:  # transformers' own kinds, and they change
            raise BadInput(
                f"{self.path / CONFIG} does not describe a model that can be built ({error})"
            ) from error

    @cached_property
    def skeleton(self) -> nn.Module:
        """The ordinary model without its numbers (on meta)."""
        from transformers import AutoModelForCausalLM

        try:
            with torch.device("meta"):
                model: nn.Module = AutoModelForCausalLM.from_config(self.config)
        except Exception as error:
            raise BadInput(
                f"{self.path / CONFIG} does not describe a model that can be built ({error})"
            ) from error
        return model

    @cached_property
    def names(self) -> list[str]:
        """Every tensor of the ordinary model once; raises BadInput when the folder holds others or
        lacks one.
        """
        tied = getattr(self.skeleton, "all_tied_weights_keys", None) or {}
        names = [name for name in self.skeleton.state_dict() if name not in tied]
        stored = {
            f"{m}.{n}" for m, layer in self.description.layers.items() for n in layer.stored()
        }
        found = {name for name in self.tensors.names() if name not in stored}
        if missing := sorted(set(names) - found):
            raise BadInput(f"{self.path} lacks tensor {missing[0]}")
        if extra := sorted(found - set(names)):
            raise BadInput(
                f"{self.path} holds tensor {extra[0]}, which {self.settings['model_type']} models have not"
            )
        return names

    def linears(self) -> list[str]:
        """Names of all linear layers of the ordinary model, a tied head included."""
        return list(linears(self.skeleton))

    def shared_inputs(self) -> list[tuple[str, ...]]:
        """Groups of linears that read one tensor: what runtimes fuse into one matrix (q/k/v,
        gate/up).
        """
        return shared_inputs(self.skeleton)

    def layer(self, name: str) -> StoredMatrix | None:
        """How the matrix `name` (...weight) is compressed; None for what is not."""
        return (
            self.description.layers.get(name.removesuffix(".weight"))
            if name.endswith(".weight")
            else None
        )

    def dtype(self, name: str) -> torch.dtype:
        """The dtype that the ordinary model holds `name` in."""
        return self.tensors.dtype(name)

    def shape(self, name: str) -> tuple[int, ...]:
        layer = self.layer(name)
        return self.tensors.shape(name) if layer is None else layer.shape

    def qweight(self, name: str) -> QWeight:
        """The stored tensors of a compressed matrix."""
        module, layer = (
            name.removesuffix(".weight"),
            self.description.layers[name.removesuffix(".weight")],
        )
        stored = layer.format.stored(layer.shape)
        return QWeight(
            layer.format, layer.shape, {n: self.tensors.read(f"{module}.{n}") for n in stored}
        )

    def read(self, name: str) -> Tensor:
        """The numbers of `name`: a compressed matrix decoded, in float32 and with its rotations
        undone.
        """
        layer, module = self.layer(name), name.removesuffix(".weight")
        if layer is None:
            return self.tensors.read(name)
        if not layer.input_rotation and layer.output_rotation == "none":
            return self.qweight(name).dense()
        rows, columns = layer.shape
        linear = CompressedLinear(
            columns,
            rows,
            layer.format,
            input_signs=layer.input_rotation,
            output_rotation=layer.output_rotation,
        )
        linear.fill({n: self.tensors.read(f"{module}.{n}") for n in linear.stored_names()})
        return linear.effective()


def refuse(problems: Sequence[str], hint: str) -> None:
    """Raise UsageError that names the first of `problems` and what to do, when there are any."""
    if problems:
        more = f"; and {len(problems) - SHOWN} more layers" if len(problems) > SHOWN else ""
        raise UsageError(f"{'; '.join(problems[:SHOWN])}{more}: {hint}")


def rotated(layer: StoredMatrix) -> bool:
    """Whether the stored matrix is the weights in another basis."""
    return layer.input_rotation or layer.output_rotation != "none"


def compare(name: str, found: Tensor, expected: Tensor, where: Path) -> None:
    """Raise ExportFailed unless both, of one dtype, are the same numbers (-0 being 0)."""
    if found.shape != expected.shape:
        raise ExportFailed(
            f"{where}: {name}, read again, is {tuple(found.shape)}, not {tuple(expected.shape)}"
        )
    if not torch.equal(found, expected):
        num = int((found != expected).sum())
        raise ExportFailed(
            f"{where}: {num} of {expected.numel()} numbers of {name}, read again, are not the model's"
        )


@contextmanager
def appearing(out: Path, overwrite: bool) -> Iterator[Path]:
    """A path beside `out` to write a file or folder at, which becomes `out` when the block ends
    well, else vanishes.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        _check_replaceable(out, overwrite)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    _remove(temporary)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        _remove(out)
        os.replace(temporary, out)
        sync_folder(out.absolute().parent)
    finally:
        _remove(temporary)


def _check_replaceable(out: Path, overwrite: bool) -> None:
    """Only what an export made is replaced, never a folder of other things."""
    if not overwrite:
        raise UsageError(
            f"{out} exists already; choose another --out, or add --overwrite to replace it"
        )
    if out.is_dir():
        ours = (out / CONFIG).is_file() and not any(path.is_dir() for path in out.iterdir())
    else:
        with open(out, "rb") as file:
            ours = file.read(4) == b"GGUF"
    if not ours:
        raise UsageError(f"{out} is no export, so it is not replaced; choose another --out")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
