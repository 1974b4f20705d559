"""The size of a model folder: the bytes of its weight files, and their bits per weight.

Both come from config.json and the headers of the safetensors files, so no weight is read and torch
is not imported. The number of weights counts the original weights of a compressed matrix, and the
stored numbers of every other tensor.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..base.errors import BadInput
from ..base.ledger import bpw_file


def file_facts(folder: Path) -> dict[str, Any]:
    """{"file_bytes", "bits"} of a model folder; `bits` is the `bpw_file` of a report.

    Raises BadInput for files that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    shapes: dict[str, list[int]] = {}
    try:
        layers = (
            json.loads((folder / "config.json").read_bytes()).get("quantization_config") or {}
        ).get("layers") or {}
        for file in files:
            with safe_open(file, framework="numpy") as tensors:
                shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
        compressed_weights = sum(math.prod(layer["shape"]) for layer in layers.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise BadInput(f"{folder} cannot be read: {error}") from error
    # A compressed module may also store a bias, whose numbers are counted. Its `weight` is an empty
    # placeholder.
    other_weights = sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if name.rpartition(".")[0] not in layers or name.endswith(".bias")
    )
    file_bytes = sum(file.stat().st_size for file in files)
    return {
        "file_bytes": file_bytes,
        "bits": bpw_file(file_bytes, compressed_weights + other_weights),
    }
