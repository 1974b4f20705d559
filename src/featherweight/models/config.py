"""A model folder's config.json, read without torch: what it says, who quantized the model, and a
fingerprint of the folder.

The functions here look at one file and at the sizes and times of the weight files; no weight is
read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..base.errors import BadInput

CONFIG = "config.json"
PACKED = "featherweight"  # the `quant_method` of the folders that this package packs


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json in `folder`; only that it is a JSON object is checked.

    Raises BadInput when the file is missing, unreadable or something else.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except OSError as error:
        raise BadInput(f"{folder / CONFIG} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{folder / CONFIG} is not JSON ({error}); fetch it again") from error
    if not isinstance(config, dict):
        raise BadInput(f"{folder / CONFIG} is not a JSON object, so it names no model_type")
    return config


def quantization_method(folder: Path) -> str | None:
    """The method that quantized the model in `folder`, as its config.json names it; None for a
    model that is not quantized.

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

    The content of config.json is hashed (that of a packed folder holds the SHA-256 of its weights);
    of the weight files it is name, size and time of modification, because hashing gigabytes at
    every start would take too long.
    """
    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]
