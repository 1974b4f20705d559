"""The size of the weight files, by kind of content, and the size of the original.

The bytes of the light model's files are divided into shares: one for each kind of content of the
blocks (codes, scales, zeros, signs, code tables and whatever else a format stores), one for the
embedding table and the head together, and one for the remainder.

The original has up to two sizes. A model is published in some dtype, and a user downloads that
file. The source folder that was quantized may hold the same weights in a larger dtype, for example
after a conversion to float32. The light model is compared with the published size when it is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...reporting.numbers import is_number, number
from .layers import position
from .results import mapping_at, mappings_at, number_at

# Known kinds of content with their labels, in the order of the picture. Other kinds follow them.
KINDS = {
    "codes": "codes",
    "scales": "scales",
    "zeros": "zero points",
    "signs": "rotation signs",
    "tables": "code tables",
    "masks": "masks",
    "low_rank": "low-rank factors",
}
LAST_KINDS = {
    "padding": "padding",
    "embedding": "embedding and head",
    "other": "everything else",
}
# Two sizes of the original with a smaller relative difference count as equal, because a file is
# larger than its weights by its header.
SAME_SIZE = 0.01


@dataclass(frozen=True)
class Share:
    """Bytes of one kind in the weight files."""

    kind: str
    label: str
    num_bytes: float


@dataclass(frozen=True)
class OriginalSize:
    """One size of the original.

    label: "original", "as published" or "source file". dtype: its name or "". num_bytes: the size.
    bits: bits for each parameter, None when they are not known.
    """

    label: str
    dtype: str
    num_bytes: float
    bits: float | None

    @property
    def bits_text(self) -> str:
        """The bits with two digits; empty when they are not known."""
        return "" if self.bits is None else f"{number(self.bits, 2)} bits"


def original_sizes(results: Mapping[str, Any]) -> list[OriginalSize]:
    """The known sizes of the original: first the published one, which the light model is compared
    with, then that of the source file if it differs.
    """
    model = mapping_at(results, "model")
    published_bytes = number_at(model, "published_bytes")
    source_bytes = number_at(model, "source_file_bytes")
    published_bits, source_bits = (
        number_at(model, key) for key in ("published_bits", "source_bits")
    )
    dtype = model.get("published_dtype")
    dtype = dtype if isinstance(dtype, str) else ""
    if published_bytes is None:
        if source_bytes is None:
            return []
        return [OriginalSize("original", "", source_bytes, source_bits)]
    if source_bytes is None:
        return [OriginalSize("original", dtype, published_bytes, published_bits)]
    if abs(source_bytes - published_bytes) <= SAME_SIZE * published_bytes:
        return [OriginalSize("original", dtype, source_bytes, source_bits)]
    return [
        OriginalSize("as published", dtype, published_bytes, published_bits),
        OriginalSize("source file", "", source_bytes, source_bits),
    ]


def shares(results: Mapping[str, Any]) -> list[Share]:
    """The shares of the weight files by kind of content, without empty ones. Their sum is the size
    of the files.

    `size.bytes` in results.json counts by kind over all layers. The bytes of embedding and head are
    subtracted from these kinds and form a share of their own.
    """
    kind_bytes = {
        str(kind): float(value)
        for kind, value in mapping_at(results, "size", "bytes").items()
        if is_number(value)
    }
    total = number_at(mapping_at(results, "size"), "file_bytes")
    if not kind_bytes or total is None:
        return []
    if "embedding" not in kind_bytes:
        _move_tables(kind_bytes, mappings_at(results, "layers"))
    new_kinds = [kind for kind in kind_bytes if kind not in KINDS | LAST_KINDS]
    labels = KINDS | {kind: kind_label(kind) for kind in new_kinds} | LAST_KINDS
    sizes = {kind: max(0.0, kind_bytes.get(kind, 0.0)) for kind in labels}
    sizes["other"] = max(0.0, total - sum(size for kind, size in sizes.items() if kind != "other"))
    return [Share(kind, labels[kind], size) for kind, size in sizes.items() if size > 0]


def kind_label(kind: str) -> str:
    """The label of a kind of content on the page."""
    return (KINDS | LAST_KINDS).get(kind, kind.replace("_", " "))


def bits_per_weight(layer: Mapping[str, Any]) -> float | None:
    """All bits stored for a layer, divided by its number of weights; None when they are unknown."""
    bits = [value for value in mapping_at(layer, "bits").values() if is_number(value)]
    weights = number_at(layer, "weights")
    return sum(bits) / weights if bits and weights else None


def _move_tables(kind_bytes: dict[str, float], layers: list[Mapping[str, Any]]) -> None:
    """Move the bytes of layers outside of the blocks from their kinds to "embedding"."""
    in_blocks: defaultdict[str, float] = defaultdict(float)
    in_tables: defaultdict[str, float] = defaultdict(float)
    for layer in layers:
        sums = in_tables if position(str(layer.get("name", ""))) is None else in_blocks
        for kind, bits in mapping_at(layer, "bits").items():
            if is_number(bits):
                sums[kind] += bits / 8
    kind_bytes["embedding"] = float(sum(in_tables.values()))
    for kind, num_bytes in in_tables.items():
        # In some results the kinds cover the blocks only; then the bytes of the tables are part of
        # "other".
        covers_tables = kind_bytes.get(kind, 0.0) >= 0.999 * (in_blocks[kind] + num_bytes)
        source = kind if covers_tables else "other"
        kind_bytes[source] = kind_bytes.get(source, 0.0) - num_bytes
