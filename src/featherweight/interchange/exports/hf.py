"""Export of a packed model to an ordinary transformers folder: every matrix is decoded and stored
in the model's own dtype.

Any software that reads transformers folders can load the result without this package, but it is as
large as the original. Each matrix is decoded in float32, its rotations are undone, and it is
rounded once to the model's dtype. A packed layer without rotations makes the same rounding before
each product, so its logits are equal in that dtype.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from ...base.errors import ExportFailed
from ...base.files import write_atomic
from ...models.config import CONFIG
from ...models.tensors import TensorFolder
from ..packed.folder import copy_companions
from ..packed.model import PackedMatrix, PackedModel
from ..shards import LazyTensor, write_checkpoint
from ..tensor_progress import TensorProgress
from ..tokenizer_check import probe_of, write_probe
from .base import Exporter, ExportPlan, compare


@dataclass(frozen=True)
class HF(Exporter[torch.dtype]):
    """Writes an ordinary transformers folder. The plan has the dtype of each tensor."""

    def holds(self, matrix: PackedMatrix) -> str | None:
        return None

    def plan(self, model: PackedModel) -> ExportPlan[torch.dtype]:
        dtypes = {name: model.dtype(name) for name in model.names}
        num_bytes = sum(
            math.prod(model.shape(name)) * dtype.itemsize for name, dtype in dtypes.items()
        )
        types = Counter(str(dtype).removeprefix("torch.") for dtype in dtypes.values())
        ratio = num_bytes / model.tensors.file_bytes
        return ExportPlan(
            dtypes, types, [f"decoded: {ratio:.1f} times the bytes of the packed model"]
        )

    def write(
        self,
        model: PackedModel,
        plan: ExportPlan[torch.dtype],
        path: Path,
        progress: TensorProgress,
    ) -> None:
        path.mkdir()
        probe = probe_of(model.path)
        tensors = [_decoder(model, name, dtype) for name, dtype in plan.tensors.items()]
        write_checkpoint(path, [progress.observe(tensor) for tensor in tensors])
        write_atomic(path / CONFIG, json.dumps(model.settings, indent=2, sort_keys=True) + "\n")
        copy_companions(model.path, path)
        write_probe(path, probe)

    def read_back(
        self,
        model: PackedModel,
        plan: ExportPlan[torch.dtype],
        path: Path,
        progress: TensorProgress,
    ) -> None:
        tensors = TensorFolder(path)
        if sorted(tensors.names()) != sorted(plan.tensors):
            raise ExportFailed(
                f"{path}: the files do not hold each tensor of the model exactly once"
            )
        for name, dtype in plan.tensors.items():
            compare(name, tensors.read(name), model.read(name).to(dtype), path)
            progress.advance(name)


def _decoder(model: PackedModel, name: str, dtype: torch.dtype) -> LazyTensor:
    return LazyTensor(name, model.shape(name), dtype, lambda: model.read(name).to(dtype))
