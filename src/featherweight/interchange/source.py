"""`Source`: the model folder that every verb starts from; its parts are read when they are first
needed.

Creating a `Source` reads no file and imports no torch, so that the native engine can start from it
within a fraction of a second. `config`, `weights` and `anatomy` read configurations and headers,
never a weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import BadInput, UsageError
from ..base.events import Listener, silent
from ..models.config import CONFIG, PACKED, folder_fingerprint, quantization_method, read_config
from .locating import find_folder, repository

if TYPE_CHECKING:
    from torch import nn

    from ..models.anatomy import Anatomy
    from ..models.tensors import TensorFolder


@dataclass(frozen=True)
class Source:
    """A model folder in transformers' layout; `name` is what the user called the model."""

    name: str
    path: Path

    @staticmethod
    def find(model: str | Path, listener: Listener = silent) -> Source:
        """The source for an alias, a folder, a `.gguf` file or a hub id; an alias or a hub id may
        be downloaded and a GGUF file converted first, with events for `listener`.

        Raises BadInput, which says what to try, when there is no such model or its folder has no
        config.json of a model.
        """
        source = Source(str(model), find_folder(model, listener))
        quantization_method(source.path)
        return source

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        return read_config(self.path)

    @cached_property
    def method(self) -> str | None:
        """The method that quantized the model, None for a model in floating point."""
        return quantization_method(self.path)

    @property
    def is_packed(self) -> bool:
        """Whether this package quantized the model."""
        return self.method == PACKED

    @property
    def weights(self) -> TensorFolder:
        """The tensors by name, read one at a time. Each access opens the files again.

        Pages of the mapped files that were read count as this process's memory until the returned
        object is released. Raises BadInput for incomplete or contradictory files.
        """
        from ..models.tensors import TensorFolder

        return TensorFolder(self.path)

    @cached_property
    def anatomy(self) -> Anatomy:
        """Names and shapes of the model's layers.

        Raises UsageError for a model that is quantized, BadInput when the folder holds no model.
        """
        from ..models.anatomy import Anatomy

        return Anatomy.of(build_skeleton(self.path))

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change whenever the weights or the configuration do."""
        return folder_fingerprint(self.path)

    @property
    def repository(self) -> str | None:
        """The model's name on the hub; None for a folder or a file."""
        return repository(self.name)

    @property
    def display_name(self) -> str:
        """What reports call the model: the last part of a path, else the name itself."""
        return Path(self.name).name if Path(self.name).exists() else self.name

    @property
    def licence(self) -> str | None:
        """The licence that the folder's own model card names."""
        from huggingface_hub import metadata_load

        path = self.path / "README.md"
        metadata = metadata_load(path) if path.is_file() else None
        return str(metadata["license"]) if metadata and metadata.get("license") else None


def build_skeleton(folder: Path) -> nn.Module:
    """The model of a folder on the meta device: modules and shapes, no numbers, in evaluation mode.

    Raises UsageError when the model is quantized, BadInput when transformers cannot build it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{folder / CONFIG} does not describe a model: {error}") from error
    if getattr(config, "quantization_config", None) is not None:
        raise UsageError(f"{folder} is quantized already; give the original model")
    try:
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, AttributeError) as error:
        raise BadInput(
            f"{folder} is no causal language model that transformers can build: {error}"
        ) from error
    return model.eval()
