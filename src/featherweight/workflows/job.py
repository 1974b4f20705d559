"""What a quantization run is about, found out before any work: the model, its recipe, its layers, its fingerprint.

Everything here reads configs and headers only. The model exists as a skeleton on the meta device, which takes no
memory; weights are read later, one matrix at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..base.bits import Bits
from ..base.errors import BadInput, UsageError
from ..base.events import Listener, silent
from ..base.files import sha256
from ..interchange import sources
from ..interchange.description import Layer
from ..models import structure
from ..models.tensors import TensorFolder
from ..quantization.pipeline import Task, tasks
from ..quantization.recipes import Recipe, resolve


@dataclass(frozen=True)
class Job:
    """A model folder, the resolved recipe as objects, and the matrices it compresses, in order."""

    name: str
    source: Path
    recipe: Recipe
    todo: tuple[Task, ...]
    tied_head: str | None
    num_parameters: int
    block_names: tuple[str, ...]

    @staticmethod
    def of(model: str, settings: Mapping[str, Any], listener: Listener = silent) -> Job:
        """Raises UsageError or BadInput for everything about recipe and model that can be known beforehand."""
        resolved = resolve({**settings, "model": str(model)})
        source = sources.locate(model, listener=listener)
        skeleton = skeleton_of(source)
        structure.linears(skeleton)
        table, head = structure.embedding(skeleton), structure.head(skeleton)
        tied = structure.is_tied(skeleton)
        tables = [table] if tied or head is None else [table, head]
        recipe = Recipe.of(resolved, tables)
        todo = tuple(tasks(skeleton, recipe.plan))
        if not todo:
            raise UsageError("the plan leaves every layer as it is; nothing would be quantized")
        blocks = tuple(name for name, _ in structure.blocks(skeleton))
        params = {id(p): p.numel() for p in skeleton.parameters()}
        # A head that shares a table left in the model's dtype stays as transformers ties it.
        shared = head if tied and any(task.name == table for task in todo) else None
        return Job(str(model), source, recipe, todo, shared, sum(params.values()), blocks)

    @cached_property
    def weights(self) -> TensorFolder:
        """The source's tensors, read lazily."""
        return TensorFolder(self.source)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The resolved recipe."""
        return self.recipe.settings

    def fingerprint(self) -> str:
        """Of recipe (without what only the evaluation uses) and source weights: what a finished layer depends on."""
        return self._hash({k: v for k, v in self.settings.items() if k not in ("evaluation", "model")})

    def collection_fingerprint(self) -> str:
        """Of what curvature depends on: source weights, method, and text (the gate's text is drawn with it)."""
        calibration = self.settings["calibration"]
        texts = [sha256(Path(f)) for f in (calibration or {}).get("files", ())]
        return self._hash([self.settings["curvature"], "and the head's", calibration, self.settings["gate"], texts])

    def _hash(self, what: Any) -> str:
        files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in self.source.glob("*.safetensors"))
        return hashlib.sha256(json.dumps([what, files], sort_keys=True).encode()).hexdigest()

    def layers(self) -> dict[str, Layer]:
        """What config.json will say of each matrix."""
        layers = {}
        for task in self.todo:
            rotation = task.rotation(self.recipe.transform)
            output = "none" if rotation is None else rotation.output
            layers[task.name] = Layer(task.format, task.shape, rotation is not None, output)
        return layers

    def bits(self, *, blocks_only: bool = False) -> Bits:
        """The ledger over all compressed matrices (`bpw_codes`, `bpw_layers`), or over those inside the blocks."""
        layers = self.layers()
        total = Bits(0)
        for task in self.todo:
            if blocks_only and not task.in_block:
                continue
            layer = layers[task.name]
            signs = sum(8 * shape[0] for key, (shape, _) in layer.stored().items() if key.endswith("_signs"))
            total += layer.format.bits(layer.shape) + Bits(0, signs=signs)
        return total


def skeleton_of(source: Path) -> nn.Module:
    """The model of a folder on the meta device: modules and shapes, no numbers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{source / 'config.json'} does not describe a model: {error}") from error
    if getattr(config, "quantization_config", None) is not None:
        raise UsageError(f"{source} is quantized already; give the original model")
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"{source} is no causal language model that transformers can build: {error}") from error
    model.eval()
    return model
