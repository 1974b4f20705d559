"""Where a model comes from: an alias, a local folder, a GGUF file or a hub id, and it ends as a
model and its tokenizer.

`locate` turns any of the four into a local folder in transformers' layout (aliases and GGUF files
are converted once and kept in the cache); `load` reads such a folder and refuses what is not
complete: a missing, unexpected or ill-shaped tensor, a non-finite weight, pickled weights, code
from the model's repository. Float32 checkpoints loaded in float32 stay mapped files: the process's
own memory grows by far less than the model's size until weights are changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..base.errors import BadInput, FeatherweightError
from ..base.events import Event, Listener, silent
from ..models.config import PACKED, quantization_method
from ..models.tensors import TensorFolder, require_finite
from .locating import find_folder

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
    """The model (evaluation mode, in `dtype`; None: as stored) and its tokenizer, from anything
    that `locate` knows.

    Folders that featherweight packed come back with their compressed layers. Raises BadInput unless
    every tensor is there, has its shape and is finite.
    """
    folder = locate(model, listener)
    listener(Event(STAGE, 0, 1, message=folder.name))
    tokenizer = load_tokenizer(folder)
    with _no_bars():
        loaded = (
            _packed(folder, dtype)
            if quantization_method(folder) == PACKED
            else _plain(folder, dtype)
        )
    loaded.eval()
    if device is not None:
        loaded.to(device)
    listener(Event(STAGE, 1, 1, message=folder.name))
    return loaded, tokenizer


def check_folder(folder: Path) -> Path:
    """`folder`, when it has a readable config.json and complete safetensors; BadInput otherwise."""
    found = quantization_method(folder)
    if found not in (None, PACKED):
        raise BadInput(
            f"{folder} is quantized already, with {found}; give the folder of the original model instead"
        )
    if not TensorFolder(folder).names():
        raise BadInput(f"{folder} holds no tensors")
    return folder


def _packed(folder: Path, dtype: torch.dtype | None) -> Any:
    from .packed.folder import load as load_packed

    return load_packed(folder, dtype)


def load_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer of a model folder. Raises BadInput when it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise BadInput(
            f"{folder}: the tokenizer cannot be loaded ({_first_line(error)})"
        ) from error


def _plain(folder: Path, dtype: torch.dtype | None) -> Any:
    from transformers import AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained
    try:
        # Mismatches are listed in `info`, where they are refused by name; otherwise the error names
        # no tensor.
        model, info = read(
            folder,
            dtype=dtype or "auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except FeatherweightError:
        raise
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
        ImportError,
        AttributeError,
    ) as error:
        raise BadInput(f"{folder} cannot be loaded: {_first_line(error)}") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if problems := sorted(map(str, info.get(kind) or ())):
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise BadInput(f"{folder}: {kind.replace('_', ' ')}: {', '.join(problems[:3])}{more}")
    for name, parameter in model.named_parameters():
        require_finite(parameter.detach(), f"{folder}: {name}")
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """transformers' own progress bars off inside: ours go through the listener."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
