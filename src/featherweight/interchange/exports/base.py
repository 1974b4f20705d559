"""What every export is: a plan of how each tensor is stored, files written by it, and the same
files read again and compared.

An export maps codes to another program's bytes and never rounds anew. Every tensor of the model is
written exactly once. Afterwards the files are read again, decoded without the code that wrote them,
and every number is compared with the packed model's. Files that differ are deleted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from ...base.errors import ExportFailed, UsageError
from ...base.events import Listener, silent
from ...models.config import CONFIG
from ...models.tensors import TensorFolder
from ..atomic import atomic_path
from ..packed.model import PackedMatrix, PackedModel
from ..tensor_progress import TensorProgress
from . import target_name

STAGE = "export"
NUM_LISTED_PROBLEMS = 3
Storage = TypeVar("Storage")


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


@dataclass(frozen=True)
class ExportPlan(Generic[Storage]):
    """How a model is to be written.

    `tensors`: each tensor of the ordinary model -> how the target stores it. `types`: the number of
    tensors of each storage type. `notes`: what a reader of the files should know.
    """

    tensors: Mapping[str, Storage]
    types: Mapping[str, int]
    notes: list[str]


class Exporter(ABC, Generic[Storage]):
    """Abstract base of all targets.

    Implementations are frozen dataclasses whose fields are the target's options. `file_suffix` is
    that of the one file that is written; None when a folder is.
    """

    file_suffix: ClassVar[str | None] = None

    @property
    def name(self) -> str:
        """What users call the target."""
        return target_name(type(self).__name__)

    @abstractmethod
    def holds(self, matrix: PackedMatrix) -> str | None:
        """Why the target cannot hold `matrix` exactly, and what is nearest; None when it can."""

    @abstractmethod
    def plan(self, model: PackedModel) -> ExportPlan[Storage]:
        """How each tensor of `model` is stored.

        Raises UsageError, naming the layers and the nearest way, when the target cannot hold the
        model exactly.
        """

    @abstractmethod
    def write(
        self,
        model: PackedModel,
        plan: ExportPlan[Storage],
        path: Path,
        progress: TensorProgress,
    ) -> None:
        """Write `model` at `path`, which does not exist yet, one tensor in memory at a time.

        `progress` advances once for each tensor of the plan.
        """

    @abstractmethod
    def read_back(
        self,
        model: PackedModel,
        plan: ExportPlan[Storage],
        path: Path,
        progress: TensorProgress,
    ) -> None:
        """Decode what `write` wrote at `path` and compare every number with `model`.

        `progress` advances once for each tensor of the plan. Raises ExportFailed when a tensor is
        missing, superfluous or different.
        """

    def is_export(self, path: Path) -> bool:
        """Whether `path` may be an earlier export to this target, so that it may be replaced."""
        return (path / CONFIG).is_file() and not any(child.is_dir() for child in path.iterdir())


def export(
    model: PackedModel,
    exporter: Exporter[Storage],
    out: Path,
    overwrite: bool = False,
    listener: Listener = silent,
) -> ExportResult:
    """Write `model` for the programs that `exporter` stands for; `out` appears complete and
    compared, or not at all.

    Raises UsageError for what the target cannot hold exactly and when `out` exists (unless
    `overwrite` and it is an export), ExportFailed when the files read again are not the model.
    """
    suffix = exporter.file_suffix
    if suffix is not None and out.suffix != suffix:
        example = out / f"model{suffix}"
        raise UsageError(f"--to {exporter.name} writes one file: name it like {example}")
    plan = exporter.plan(model)
    _check_replaceable(exporter, out, overwrite)
    progress = TensorProgress(STAGE, 2 * len(plan.tensors), listener)
    with atomic_path(out) as path:
        exporter.write(model, plan, path, progress)
        exporter.read_back(model, plan, path, progress)
        file_bytes = path.stat().st_size if path.is_file() else TensorFolder(path).file_bytes
    return ExportResult(out, file_bytes, dict(plan.types), len(plan.tensors), plan.notes)


def refuse(problems: Sequence[str], hint: str) -> None:
    """Raise UsageError that names the first of `problems` and what to do, when there are any."""
    if problems:
        num_unlisted = len(problems) - NUM_LISTED_PROBLEMS
        remainder = f"; and {num_unlisted} more layers" if num_unlisted > 0 else ""
        raise UsageError(f"{'; '.join(problems[:NUM_LISTED_PROBLEMS])}{remainder}: {hint}")


def compare(name: str, file_tensor: Tensor, model_tensor: Tensor, path: Path) -> None:
    """Raise ExportFailed, naming the tensor `name` of the file or folder `path`, unless both
    tensors, of one dtype, are the same numbers (-0 being 0).
    """
    if file_tensor.shape != model_tensor.shape:
        raise ExportFailed(
            f"{path}: {name}, read again, is {tuple(file_tensor.shape)}, "
            f"not {tuple(model_tensor.shape)}"
        )
    if not torch.equal(file_tensor, model_tensor):
        num = int((file_tensor != model_tensor).sum())
        raise ExportFailed(
            f"{path}: {num} of {model_tensor.numel()} numbers of {name}, read again, "
            "are not the model's"
        )


def _check_replaceable(exporter: Exporter[Storage], out: Path, overwrite: bool) -> None:
    """Only what an export made is replaced, never a folder of other things."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise UsageError(
            f"{out} exists already; choose another --out, or add --overwrite to replace it"
        )
    if not exporter.is_export(out):
        raise UsageError(f"{out} is no export, so it is not replaced; choose another --out")
