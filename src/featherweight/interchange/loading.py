"""A model and its tokenizer, from an alias, a local folder, a GGUF file or a hub id.

`locate` turns any of the four into a local folder in transformers' layout (aliases and GGUF files
are converted once and kept in the cache). `load` reads such a folder. It refuses a missing,
unexpected or ill-shaped tensor, a non-finite weight, pickled weights, and code from the model's
repository. The weights of a float32 checkpoint that is loaded in float32 stay in the mapped files,
so the process's own memory grows by far less than the model's size until weights are changed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..base.errors import BadInput
from ..base.events import Event, Listener, silent
from ..models.config import PACKED
from ..models.structure import check_no_experts
from ..models.tensors import require_finite
from .locating import find_folder
from .pretrained import build_skeleton, load_config, load_pretrained, untie
from .quiet import no_progress_bars
from .source import Source
from .tokenizer_check import load_checked_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STAGE = "load"


def locate(model: str | Path, listener: Listener = silent) -> Path:
    """A local folder in transformers' layout for an alias, a folder, a `.gguf` file or a hub id.

    A path that exists wins over an alias or hub id of the same name. Raises BadInput, saying what
    to try.
    """
    return check_folder(find_folder(model, listener))


def load(
    model: str | Path,
    dtype: torch.dtype | None = torch.float32,
    device: str | torch.device | None = None,
    listener: Listener = silent,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, in evaluation mode, and its tokenizer.

    `model`: an alias, a folder, a `.gguf` file or a hub id. `dtype`: the dtype of the weights
    (None: the stored one). `device`: where the model is moved (None: it stays on the CPU).
    `listener`: receives the events of loading. The model of a packed folder has compressed layers.
    Raises BadInput when the model cannot be found, or unless every tensor is there, has its shape
    and is finite, and when generation would cut text in another way than this tokenizer.
    """
    folder = locate(model, listener)
    listener(Event(STAGE, 0, 1, message=folder.name))
    tokenizer = load_checked_tokenizer(folder)
    with no_progress_bars():
        loaded_model = _load_model(Source(str(model), folder), dtype)
    loaded_model.eval()
    if device is not None:
        loaded_model.to(device)
    listener(Event(STAGE, 1, 1, message=folder.name))
    return loaded_model, tokenizer


def check_folder(folder: Path) -> Path:
    """`folder`, when it has a readable config.json and complete safetensors.

    Raises BadInput otherwise, and UsageError for a quantized mixture of experts.
    """
    source = Source(str(folder), folder)
    if source.method not in (None, PACKED):
        # For GPT-OSS and DeepSeek this is the truer reason: their originals are quantized.
        with contextlib.suppress(BadInput):
            check_no_experts(build_skeleton(load_config(folder), folder))
        raise BadInput(
            f"{folder} is quantized already, with {source.method}; "
            "give the folder of the original model instead"
        )
    if not source.weights.names():
        raise BadInput(f"{folder} holds no tensors")
    return folder


def _load_model(source: Source, dtype: torch.dtype | None) -> Any:
    if source.is_packed:
        from .packed.folder import load as load_packed

        return load_packed(source.path, dtype)
    # The headers are compared first: transformers would allocate what a wrong shape asks for.
    separate = source.checkpoint.separate
    model = load_pretrained(source.path, dtype)
    if separate:
        untie(model.config)
    for name, parameter in model.named_parameters():
        require_finite(parameter.detach(), f"{source.path}: {name}")
    return model
