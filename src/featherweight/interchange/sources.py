"""Where a model comes from: an alias, a local folder, a GGUF file or a hub id, and it ends as a model and its
tokenizer.

`locate` turns any of the four into a local folder in transformers' layout (aliases and GGUF files are converted once
and kept in the cache); `load` reads such a folder and refuses what is not complete: a missing, unexpected or
ill-shaped tensor, a non-finite weight, pickled weights, code from the model's repository. Float32 checkpoints loaded
in float32 stay mapped files: the process's own memory grows by far less than the model's size until weights are
changed.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..base.errors import BadInput, FeatherweightError
from ..base.events import Event, Listener, silent
from ..base.files import sha256
from ..models.tensors import TensorFolder, require_finite
from . import carried
from .cache import built_once, cache_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG, PACKED = "config.json", "featherweight"
STAGE = "load"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What a model folder needs; not the pickles, other frameworks' files, and copies in subfolders that hubs also hold.
WANTED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken", "LICENSE*", "NOTICE*", "README.md")
UNWANTED = ("*/*", "consolidated*")


def locate(model: str | Path, listener: Listener = silent) -> Path:
    """A local folder in transformers' layout for an alias, a folder, a `.gguf` file or a hub id.

    A path that exists wins over an alias or hub id of the same name. Raises BadInput, saying what to try.
    """
    text, path = str(model), Path(model).expanduser()
    if path.is_dir():
        return check_folder(path)
    if path.is_file():
        return _from_file(path, listener)
    if found := carried.find(text):
        return check_folder(carried.folder_of(found, listener))
    if not _looks_like_a_path(model) and HUB_ID.fullmatch(text):
        return check_folder(_from_hub(text, listener))
    aliases = [name for known in carried.MODELS for name in (known.name, *known.also)]
    near = get_close_matches(text, aliases, n=1)
    raise BadInput(
        f"{text!r} was not found: there is no such folder or file"
        + (f"; did you mean {near[0]}?" if near else "")
        + f". A model is an alias ({', '.join(aliases)}), a local folder, a .gguf file or a hub id (owner/name)"
    )


def repository(model: str) -> str | None:
    """The name on the hub of what a user called `model`; None for a folder or a file."""
    if Path(model).expanduser().exists():
        return None
    if found := carried.find(model):
        return found.repository
    return model if HUB_ID.fullmatch(model) else None


def load(
    model: str | Path,
    dtype: torch.dtype | None = torch.float32,
    device: str | torch.device | None = None,
    listener: Listener = silent,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model (evaluation mode, in `dtype`; None: as stored) and its tokenizer, from anything that `locate` knows.

    Folders that featherweight packed come back with their compressed layers. Raises BadInput unless every tensor is
    there, has its shape and is finite.
    """
    folder = locate(model, listener)
    listener(Event(STAGE, 0, 1, message=folder.name))
    tokenizer = _tokenizer(folder)
    with _no_bars():
        loaded = _packed(folder, dtype) if _method(folder) == PACKED else _plain(folder, dtype)
    loaded.eval()
    if device is not None:
        loaded.to(device)
    listener(Event(STAGE, 1, 1, message=folder.name))
    return loaded, tokenizer


def check_folder(folder: Path) -> Path:
    """`folder`, when it has a readable config.json and complete safetensors; BadInput otherwise."""
    method = _method(folder)
    if method not in (None, PACKED):
        raise BadInput(f"{folder} is quantized already, with {method}; give the folder of the original model instead")
    if not TensorFolder(folder).names():
        raise BadInput(f"{folder} holds no tensors")
    return folder


def _method(folder: Path) -> str | None:
    """Who quantized the model, as its config.json says; None for an ordinary one."""
    config = folder / CONFIG
    if not config.is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        hint = f"; to use {ggufs[0].name}, give its path" if ggufs else ""
        raise BadInput(f"{folder} is not a model folder: it has no {CONFIG}{hint}")
    try:
        described = json.loads(config.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{config} is not JSON ({error}); fetch it again") from error
    if not isinstance(described, dict) or not isinstance(described.get("model_type"), str):
        raise BadInput(f"{config} names no model_type; it is not the configuration of a transformers model")
    quantization = described.get("quantization_config")
    if quantization is None:
        return None
    return str(quantization.get("quant_method")) if isinstance(quantization, dict) else "an unknown method"


def _from_file(path: Path, listener: Listener) -> Path:
    from .gguf import convert

    with open(path, "rb") as file:
        magic = file.read(4)
    if path.suffix != ".gguf" and magic != b"GGUF":
        raise BadInput(
            f"{path} is neither a model folder nor a GGUF file; to use a checkpoint, give the folder it lies in"
        )
    listener(Event("checksum", 0, 1, message=path.name))
    folder = cache_folder() / "models" / f"{path.stem}-{sha256(path)[:16]}"
    listener(Event("checksum", 1, 1, message=path.name))
    return built_once(folder, lambda beside: convert(path, beside, listener))


def _from_hub(name: str, listener: Listener) -> Path:
    """The hub's snapshot of `name` in its own cache; HF_HUB_OFFLINE=1 uses only what is there already."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    listener(Event("download", 0, 1, message=name))
    try:
        folder = snapshot_download(name, allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{name!r} is no local folder, and could not be fetched from the hub: {reason} "
            "(offline, only models that the hub's cache already holds can be used; give a local folder instead)"
        ) from error
    listener(Event("download", 1, 1, message=name))
    return Path(folder)


def _looks_like_a_path(model: str | Path) -> bool:
    text = str(model)
    return isinstance(model, Path) or text.startswith((".", "~", "/")) or text.endswith((".gguf", ".safetensors", "/"))


def _packed(folder: Path, dtype: torch.dtype | None) -> Any:
    from .packed import load as load_packed

    return load_packed(folder, dtype)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise BadInput(f"{folder}: the tokenizer cannot be loaded ({_first_line(error)})") from error


def _plain(folder: Path, dtype: torch.dtype | None) -> Any:
    from transformers import AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained
    try:
        # Mismatches are listed in `info`, where they are refused by name; otherwise the error names no tensor.
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
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, ImportError, AttributeError) as error:
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
