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

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..models.config import PACKED, folder_fingerprint, quantization_method, read_config
from .locating import find_folder, repository

if TYPE_CHECKING:
    from torch import nn

    from ..models.anatomy import Anatomy
    from ..models.tensors import TensorFolder
    from .checkpoint import CheckpointMap

TIE = "tie_word_embeddings"


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

    @property
    def true_config(self) -> dict[str, Any]:
        """The content of config.json, saying of tied tables what the files hold."""
        if not self.checkpoint.separate:
            return self.config
        config = {**self.config, TIE: False}
        parts = {key: value for key, value in config.items() if isinstance(value, dict)}
        return config | {key: {**value, TIE: False} for key, value in parts.items() if TIE in value}

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
        """The tensors by the model's names for them, read one at a time, opened anew at each
        access.

        Pages of the mapped files that were read count as this process's memory until the returned
        object is released. Raises BadInput for incomplete or contradictory files.
        """
        from ..models.tensors import TensorFolder

        tensors = TensorFolder(self.path)
        if self.method is not None:
            return tensors
        return tensors.renamed(self.checkpoint.file_names)

    @cached_property
    def checkpoint(self) -> CheckpointMap:
        """Which tensor of the files fills which parameter.

        Raises UsageError for a model that is quantized, BadInput for files that do not fill the
        model.
        """
        from ..models.tensors import TensorFolder
        from .checkpoint import map_checkpoint

        return map_checkpoint(TensorFolder(self.path), self._skeleton())

    @cached_property
    def anatomy(self) -> Anatomy:
        """Names and shapes of the model's layers.

        Raises UsageError for a model that is quantized, BadInput when the folder holds no model.
        """
        from ..models.anatomy import Anatomy

        return Anatomy.of(self._skeleton(tied=not self.checkpoint.separate))

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change whenever the weights or the configuration do."""
        return folder_fingerprint(self.path)

    @cached_property
    def context(self) -> int | None:
        """The most tokens that the model's configuration allows, None when it names no limit."""
        from .pretrained import load_config

        limit = getattr(load_config(self.path).get_text_config(), "max_position_embeddings", None)
        return int(limit) if isinstance(limit, int) and limit > 0 else None

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

    def _skeleton(self, tied: bool = True) -> nn.Module:
        """The model without its numbers, with separate tables unless `tied`."""
        from .pretrained import build_skeleton, load_config, untie

        config = load_config(self.path)
        if getattr(config, "quantization_config", None) is not None:
            raise UsageError(f"{self.path} is quantized already; give the original model")
        if not tied:
            untie(config)
        return build_skeleton(config, self.path)
