"""The native engine on a policy that is being trained: its weights rounded to 8 bits."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ..inference.engine import Engine
from ..inference.native.reader import open_runtime
from ..interchange.packed.folder import save
from ..quantization.formats import Int
from ..quantization.pipeline import quantize
from ..quantization.plans import Plan
from ..quantization.rounding import Nearest


def int8_engine(tokenizer: Any, folder: Path | None = None) -> Callable[[nn.Module], Engine]:
    """What `reasoning.samplers.EngineSampler` opens at each update: a copy of the policy in
    `Int(8)`, rounded to nearest, on the native engine.

    folder: where the packed weights are written (None: a temporary one); they are mapped into
    memory, and their names can go at once. Raises UsageError for a model that the engine cannot
    run.
    """

    def open_policy(model: nn.Module) -> Engine:
        light = copy.deepcopy(model).eval()
        quantize(light, Nearest(), Plan({"*": Int(bits=8)}))
        path = Path(tempfile.mkdtemp(prefix="policy-", dir=folder))
        try:
            save(light, path / "policy", tokenizer)
            return open_runtime(path / "policy")
        finally:
            shutil.rmtree(path, ignore_errors=True)

    return open_policy
