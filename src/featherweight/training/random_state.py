"""The state of every random generator that a loss, dropout or a batch may draw from: torch's on the
CPU and on this process's GPU, that of Python's `random`, and numpy's global generator.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """The states as plain data for JSON."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, spare = np.random.get_state()  # noqa: NPY002
    state = {
        "torch": torch.get_rng_state().tolist(),
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, spare],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state().tolist()
    return state


def restore(state: dict[str, Any]) -> None:
    """Set the generators to what `capture` returned."""
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8, device="cpu"))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, spare = state["numpy"]
    keys = np.asarray(keys, np.uint32)
    np.random.set_state((name, keys, position, has_gauss, spare))  # noqa: NPY002
    if "cuda" in state:
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8, device="cpu"))
