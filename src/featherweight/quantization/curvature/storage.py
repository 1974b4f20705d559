"""Curvature on disk: one safetensors file of packed lower triangles, read a layer at a time.

A file is a snapshot of running sums, so a collection that was interrupted goes on from its newest
snapshot and ends with the same bytes. Triangles are float32: half of the squares' memory (0.6 GB
for a 135M model with both Fisher sides).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from torch import Tensor

from ...base.errors import BadInput
from ...models.tensors import write_shard
from .base import Curvature, Factors, Sums


def save(sums: Sums, path: Path, fingerprint: str = "") -> None:
    """Write a snapshot (beside, then renamed)."""
    packed = {key: pack_triangle(matrix) for key, matrix in sums.matrices.items()}
    about = {
        "numbers": json.dumps(sums.numbers, sort_keys=True),
        "owners": json.dumps(sums.owners, sort_keys=True),
        "tokens": str(sums.tokens),
        "sequences": str(sums.sequences),
        "fingerprint": fingerprint,
    }
    write_shard(path, packed, about)


class Snapshot:
    """A saved collection; matrices are read when asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self.file = safe_open(str(path), framework="pt")
            about = self.file.metadata()
            self.numbers: dict[str, float] = json.loads(about["numbers"])
            self.owners: dict[str, str] = json.loads(about["owners"])
            self.tokens, self.sequences = int(about["tokens"]), int(about["sequences"])
            self.fingerprint = about["fingerprint"]
        except Exception as error:
            raise BadInput(
                f"{path} is not a readable curvature collection ({error}); collect it again"
            ) from error

    def sums(self, names: set[str] | None = None) -> Sums:
        """The running sums, of the layers `names` only when given."""
        sums = Sums()
        sums.numbers, sums.owners = self.numbers, self.owners
        sums.tokens, sums.sequences = self.tokens, self.sequences
        wanted = (
            None if names is None else names | {self.owners[n] for n in names if n in self.owners}
        )
        for key in self.file.keys():  # noqa: SIM118 (safe_open is not a mapping)
            if wanted is None or key.split("/", 1)[1] in wanted:
                sums.matrices[key] = unpack_triangle(self.file.get_tensor(key))
        return sums

    def factors(self, curvature: Curvature, name: str) -> Factors:
        """Factors of one layer."""
        if name not in self.owners:
            raise BadInput(
                f"{name} is not in the saved curvature; it was collected from another model"
            )
        return curvature.factors(self.sums({name}), name)


def pack_triangle(h: Float[Tensor, "n n"]) -> Float[Tensor, " packed"]:
    """The lower triangle, row by row."""
    n = h.shape[0]
    return h[_lower(n, h.device)]


def unpack_triangle(packed: Float[Tensor, " packed"]) -> Float[Tensor, "n n"]:
    """The lower triangle as a square with zeros above."""
    n = (math.isqrt(8 * packed.numel() + 1) - 1) // 2
    h = torch.zeros(n, n, device=packed.device)
    h[_lower(n, packed.device)] = packed
    return h


def _lower(n: int, device: torch.device) -> Bool[Tensor, "n n"]:
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()
