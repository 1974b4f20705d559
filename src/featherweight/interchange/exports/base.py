"""The three steps of every export: plan how each tensor is stored, write the files, read them again
and compare.

An export stores the model's codes in another program's layout and never rounds a weight again.
Every tensor of the model is written exactly once. Then the files are read again and decoded by code
that is independent of the writer, and every number is compared with the packed model's. Files that
differ are deleted.
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
# How a target stores one tensor, such as a GGUF type and name; each target has its own class.
Storage = TypeVar("Storage")


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    `path`: the file or folder. `file_bytes`: its size. `types`: the number of tensors of each
    storage type. `num_tensors`: the number of all tensors. `notes`: sentences for the user, such as
    which programs cannot read the files.
    """

    path: Path
    file_bytes: int
    types: dict[str, int]
    num_tensors: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExportPlan(Generic[Storage]):
    """How an export will write a model.

    `tensors`: name of each tensor of the uncompressed model -> how the target stores it. `types`:
    the number of tensors of each storage type. `notes`: sentences for the user, such as which
    programs cannot read the files.
    """

    tensors: Mapping[str, Storage]
    types: Mapping[str, int]
    notes: list[str]


class Exporter(ABC, Generic[Storage]):
    """Abstract base of all export targets.

    Implementations are frozen dataclasses whose fields are the target's options. `export` calls
    `plan`, `write` and `read_back` in this order. `file_suffix` is the suffix of the file that the
    target writes, or None when it writes a folder.
    """

    file_suffix: ClassVar[str | None] = None

    @property
    def name(self) -> str:
        """What users call the target."""
        return target_name(type(self).__name__)

    @abstractmethod
    def holds(self, matrix: PackedMatrix) -> str | None:
        """None when the target can store `matrix` exactly; else the reason why it cannot and the
        most similar format that it can store.
        """

    @abstractmethod
    def plan(self, model: PackedModel) -> ExportPlan[Storage]:
        """Decide how each tensor of `model` is stored.

        Raises UsageError, which names the layers and what to do instead, when the target cannot
        store the model exactly.
        """

    @abstractmethod
    def write(
        self,
        model: PackedModel,
        plan: ExportPlan[Storage],
        path: Path,
        progress: TensorProgress,
    ) -> None:
        """Write `model` to `path`, which does not exist yet, with one tensor in memory at a time.

        `plan` is what `plan(model)` returned. `progress` advances once for each tensor of the plan.
        """

    @abstractmethod
    def read_back(
        self,
        model: PackedModel,
        plan: ExportPlan[Storage],
        path: Path,
        progress: TensorProgress,
    ) -> None:
        """Decode the files that `write` wrote to `path` and compare every number with `model`.

        `progress` advances once for each tensor of the plan. Raises ExportFailed when a tensor is
        missing, superfluous or different.
        """

    def is_export(self, path: Path) -> bool:
        """Whether `path` looks like an earlier export to this target, so that it may be
        replaced.
        """
        return (path / CONFIG).is_file() and not any(child.is_dir() for child in path.iterdir())


def export(
    model: PackedModel,
    exporter: Exporter[Storage],
    out: Path,
    overwrite: bool = False,
    listener: Listener = silent,
) -> ExportResult:
    """Write `model` in the format of `exporter` to `out`, read it again and compare.

    `out`: the file or folder; it appears only after the comparison has succeeded. `overwrite`:
    replace `out` when it is an earlier export. `listener`: receives an event for each tensor that
    is written and for each that is read again.

    Raises UsageError when the target cannot store the model exactly, when `out` has the wrong
    suffix, and when `out` exists and may not be replaced; ExportFailed when the files, read again,
    differ from the model.
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
    """Raise UsageError with the first `problems` and the `hint` what to do; return when there are
    no problems.
    """
    if problems:
        num_unlisted = len(problems) - NUM_LISTED_PROBLEMS
        remainder = f"; and {num_unlisted} more layers" if num_unlisted > 0 else ""
        raise UsageError(f"{'; '.join(problems[:NUM_LISTED_PROBLEMS])}{remainder}: {hint}")


def compare(name: str, file_tensor: Tensor, model_tensor: Tensor, path: Path) -> None:
    """Raise ExportFailed unless both tensors, which have the same dtype, hold equal numbers (-0
    equals 0). The error names the tensor `name` and the file or folder `path`.
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
    """Raise UsageError when `out` exists, unless `overwrite` is set and `out` is an earlier export.

    So a mistyped path never deletes a folder with other content.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise UsageError(
            f"{out} exists already; choose another --out, or add --overwrite to replace it"
        )
    if not exporter.is_export(out):
        raise UsageError(f"{out} is no export, so it is not replaced; choose another --out")
