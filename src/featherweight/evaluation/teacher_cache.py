"""A cache of an original's logits on disk, so that comparing many candidates with it takes half the
time.

It is used in place of a model: `KL(TeacherCache(model, folder, key), windows)`. The logits of a
window are read from its file if it exists; otherwise the model computes them and the file is
written. There is one file for each window, named by the SHA-256 of `key`, dtype and token ids, so
that a window with a BOS and one without have different files. It holds the raw little-endian
numbers (length x vocabulary). It is written under another name and then renamed, so a killed run
leaves no incomplete file and the next run continues.

float16 needs half the disk space (100 MB for a window of 1,024 tokens and a vocabulary of 49,152),
but rounds the logits by up to 2^-11 of their size. For SmolLM2 this rounding causes a KL of 3e-6
(measured), so the KL of a model with itself is no longer exactly 0. Therefore float32 is the
default, and `evaluate` uses no cache unless the caller passes one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..base.errors import BadInput, UsageError
from ..base.files import write_atomic

DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """A callable with the logits of `model`, which are cached in `folder`.

    key: identifies the weights, for example by the SHA-256 of the checkpoint. model: None to use
    only cached windows; others then raise BadInput. dtype: "float32" or "float16"; others raise
    UsageError.
    """

    model: nn.Module | None
    folder: Path
    key: str
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype={self.dtype!r} is not stored; try one of {', '.join(DTYPES)}")

    def __call__(
        self, input_ids: Int[Tensor, "one length"], *, use_cache: bool = False
    ) -> SimpleNamespace:
        """An object whose attribute `logits` has the shape (1, length, vocabulary).

        Raises UsageError for more than one sequence, BadInput when the size of the file does not
        fit `length` rows or when there is neither a file nor a model.
        """
        if len(input_ids) != 1:
            raise UsageError(
                f"a TeacherCache is asked one sequence at a time, got {len(input_ids)}"
            )
        path = self._path(input_ids)
        if not path.exists():
            self._remember(input_ids, path)
        return SimpleNamespace(logits=self._read(path, input_ids.shape[1])[None])

    def _path(self, input_ids: Tensor) -> Path:
        digest = hashlib.sha256(f"{self.key}\0{self.dtype}\0".encode())
        digest.update(input_ids.cpu().to(torch.int64).numpy().tobytes())
        return Path(self.folder) / f"{digest.hexdigest()[:32]}.{self.dtype}"

    def _remember(self, input_ids: Tensor, path: Path) -> None:
        if self.model is None:
            raise BadInput(f"{path} is missing and there is no model to fill it with")
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                answer = self.model(
                    input_ids.to(next(self.model.parameters()).device), use_cache=False
                ).logits[0]
        finally:
            self.model.train(training)
        path.parent.mkdir(parents=True, exist_ok=True)
        values = answer.float().cpu().numpy().astype(DTYPES[self.dtype], copy=False)
        write_atomic(path, lambda temporary: values.tofile(temporary))

    def _read(self, path: Path, length: int) -> Tensor:
        values = np.fromfile(path, DTYPES[self.dtype])
        if values.size == 0 or values.size % length:
            raise BadInput(
                f"{path} holds {values.size} numbers, not {length} rows of a vocabulary; delete it"
            )
        return torch.from_numpy(values.reshape(length, -1))
