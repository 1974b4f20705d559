"""The description of a quantization run that is complete before the work starts: its source, its
recipe, and the plan of every layer.

Only configs and headers are read here; weights are read later, one matrix at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..base.files import sha256
from ..base.ledger import Ledger
from ..interchange.loading import check_folder
from ..interchange.source import Source
from ..interchange.tokenizer_check import probe_of
from ..quantization.formats.base import Format
from ..quantization.layouts.description import StoredMatrix
from ..quantization.pipeline import LayerPlan, plan_layers
from ..quantization.recipes import Recipe, resolve


@dataclass(frozen=True)
class QuantizeRun:
    """The source, the resolved recipe as objects, and the matrices to compress, in order."""

    source: Source
    recipe: Recipe
    layer_plans: tuple[LayerPlan, ...]

    @staticmethod
    def of(model: str, settings: Mapping[str, Any], listener: Listener = silent) -> QuantizeRun:
        """The run for the model `model` (alias, folder, GGUF file or hub id) and the recipe keys
        `settings`.

        Raises UsageError or BadInput for every mistake in the recipe or the model that can be found
        before the work.
        """
        recipe_settings = resolve({**settings, "model": str(model)})
        source = Source.find(model, listener)
        check_folder(source.path)
        probe_of(source.path)
        recipe = Recipe.of(recipe_settings, source.anatomy.tables)
        layer_plans = tuple(plan_layers(source.anatomy, recipe.plan))
        if not layer_plans:
            raise UsageError("the plan leaves every layer as it is; nothing would be quantized")
        return QuantizeRun(source, recipe, layer_plans)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The resolved recipe."""
        return self.recipe.settings

    @property
    def tied_head(self) -> str | None:
        """The name of a head that shares the table of a compressed embedding; None for a head of
        its own, and for one that shares an uncompressed embedding.
        """
        anatomy = self.source.anatomy
        is_compressed = any(plan.name == anatomy.embedding for plan in self.layer_plans)
        return anatomy.head if anatomy.is_tied and is_compressed else None

    def layer_fingerprint(self) -> str:
        """A hash of everything that a finished layer depends on: the source and the recipe without
        its evaluation settings.
        """
        return self._digest(
            {k: v for k, v in self.settings.items() if k not in ("evaluation", "model")}
        )

    def curvature_fingerprint(self) -> str:
        """A hash of everything that curvature depends on: the source, the method, and the text,
        which is drawn together with that of the gate.
        """
        calibration = self.settings["calibration"]
        text_digests = [sha256(Path(f)) for f in (calibration or {}).get("files", ())]
        return self._digest(
            [self.settings["curvature"], calibration, self.settings["gate"], text_digests]
        )

    def _digest(self, dependencies: Any) -> str:
        content = json.dumps([dependencies, self.source.fingerprint], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def matrices(self) -> dict[str, StoredMatrix[Format]]:
        """The description of each matrix for config.json."""
        matrices = {}
        for plan in self.layer_plans:
            rotation = plan.rotation(self.recipe.transform)
            output = "none" if rotation is None else rotation.output
            matrices[plan.name] = StoredMatrix(
                plan.format, plan.shape, rotation is not None, output
            )
        return matrices

    def ledger(self, *, blocks_only: bool = False) -> Ledger:
        """The bits of all compressed matrices, or with `blocks_only` of those inside the blocks."""
        matrices = self.matrices()
        total = Ledger(0)
        for plan in self.layer_plans:
            if blocks_only and not plan.in_block:
                continue
            matrix = matrices[plan.name]
            signs = sum(
                8 * shape[0]
                for key, (shape, _) in matrix.stored().items()
                if key.endswith("_signs")
            )
            total += matrix.format.ledger(matrix.shape) + Ledger(
                0, {"signs": signs} if signs else {}
            )
        return total
