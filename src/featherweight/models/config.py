"""Reads the config.json of a model folder without torch: its content, the method that quantized the
model, and a fingerprint of the folder.

The functions read config.json and the sizes and times of the weight files, and never a weight.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..base.errors import BadInput

CONFIG = "config.json"
WEIGHTS_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
PACKED = "featherweight"  # the `quant_method` of the folders that this package packs
# The `model_type` of a small Llama with replaced parts (`scratch.py`).
SCRATCH = "featherweight_scratch"


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json in `folder`. Its keys are not checked, but for one that names
    another file of weights.

    Raises BadInput when the file is missing, unreadable or no JSON object, and when transformers
    would read other weights than those that are read here.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except OSError as error:
        raise BadInput(f"{folder / CONFIG} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{folder / CONFIG} is not JSON ({error}); fetch it again") from error
    if not isinstance(config, dict):
        raise BadInput(f"{folder / CONFIG} is not a JSON object, so it names no model_type")
    weights = config.get("transformers_weights")
    file = WEIGHTS_FILE if (folder / WEIGHTS_FILE).is_file() else INDEX
    if weights not in (None, file):
        raise BadInput(
            f"{folder / CONFIG} names another file of weights, {str(weights)[:80]!r} "
            f"(transformers_weights), but only {file} is read; rename the file, remove the key"
        )
    return config


def quantization_method(folder: Path) -> str | None:
    """The quantization method that config.json in `folder` names; None for a model that is not
    quantized.

    Raises BadInput when the folder has no config.json of a transformers model.
    """
    if not (folder / CONFIG).is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        hint = f"; to use {ggufs[0].name}, give its path" if ggufs else ""
        raise BadInput(f"{folder} is not a model folder: it has no {CONFIG}{hint}")
    config = read_config(folder)
    if not isinstance(config.get("model_type"), str):
        raise BadInput(
            f"{folder / CONFIG} names no model_type; it is not the configuration of a transformers "
            "model"
        )
    quantization = config.get("quantization_config")
    if quantization is None:
        return None
    if not isinstance(quantization, dict):
        return "an unknown method"
    return str(quantization.get("quant_method"))


def folder_fingerprint(folder: Path) -> str:
    """32 hexadecimal digits that change whenever config.json or a weight file of `folder` is
    written again.

    They are a hash of the content of config.json (which holds the SHA-256 of the weights in a
    packed folder) and of the names, sizes and modification times of the weight files. The weights
    themselves are not hashed, because that would take too long at every start.
    """
    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]
