"""A packed model as an ordinary transformers folder: every matrix decoded, in the model's own
dtype.

Any software that reads transformers folders loads it, and nothing else is needed; it is as large as
the original. A matrix is the effective one, rotations undone, and rounded once to the model's
dtype: without rotation that is the rounding which the packed layer makes before each product, so
logits are the same in that dtype.

The files are read again and compared; one matrix is in memory at a time.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from torch import Tensor

from ...base.errors import ExportFailed
from ...base.events import Event, Listener, silent
from ...base.files import write_atomic
from ...models.config import CONFIG
from ...models.tensors import TensorFolder
from ..packed.folder import copy_companions
from ..shards import Entry, write_checkpoint
from .base import ExportResult, PackedModel, appearing, compare

STAGE = "export"


def export_hf(
    model: PackedModel, out: Path, overwrite: bool = False, listener: Listener = silent
) -> ExportResult:
    """Write `model` to the folder `out`, decoded; it appears complete and compared, or not at all."""
    with appearing(out, overwrite) as folder:
        folder.mkdir()
        write_checkpoint(
            folder, [_entry(model, name, i, listener) for i, name in enumerate(model.names, 1)]
        )
        write_atomic(folder / CONFIG, json.dumps(model.settings, indent=2, sort_keys=True) + "\n")
        copy_companions(model.path, folder)
        tensors = TensorFolder(folder)
        if sorted(tensors.names()) != sorted(model.names):
            raise ExportFailed(
                f"{folder}: the files do not hold each tensor of the model exactly once"
            )
        for done, name in enumerate(model.names, len(model.names) + 1):
            compare(name, tensors.read(name), model.read(name).to(model.dtype(name)), folder)
            listener(Event(STAGE, done, 2 * len(model.names), message=name))
        file_bytes = tensors.file_bytes
    types = Counter(str(model.dtype(name)).removeprefix("torch.") for name in model.names)
    note = (
        f"decoded: {file_bytes / model.tensors.file_bytes:.1f} times the bytes of the packed model"
    )
    return ExportResult(out, file_bytes, dict(types), len(model.names), [note])


def _entry(model: PackedModel, name: str, done: int, listener: Listener) -> Entry:
    dtype = model.dtype(name)

    def read() -> Tensor:
        listener(Event(STAGE, done, 2 * len(model.names), message=name))
        return model.read(name).to(dtype)

    return Entry(name, model.shape(name), dtype, read)
