"""transformers' `from_pretrained` with an error for every problem.

transformers only warns about a missing tensor and fills it with random numbers. `load_pretrained`
raises BadInput for a missing, unexpected or ill-shaped tensor, for pickled weights and for code
from the model's repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..base.errors import BadInput, FeatherweightError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
NUM_LISTED_NAMES = 3


def load_pretrained(folder: Path, dtype: torch.dtype | None) -> PreTrainedModel:
    """The causal language model in `folder`, in `dtype` (None: as stored).

    Raises BadInput, which names the folder and the tensors, when transformers cannot load the model
    or reports any problem with its tensors.
    """
    from transformers import AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained
    try:
        # With `ignore_mismatched_sizes`, tensors of the wrong shape are listed in `info` and
        # refused by name below. Without it, transformers raises an error that names no tensor.
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
        raise BadInput(f"{folder} cannot be loaded: {first_line(error)}") from error
    for kind in PROBLEMS:
        if names := sorted(map(str, info.get(kind) or ())):
            first_names = ", ".join(names[:NUM_LISTED_NAMES])
            num_unlisted = len(names) - NUM_LISTED_NAMES
            remainder = f" and {num_unlisted} more" if num_unlisted > 0 else ""
            raise BadInput(f"{folder}: {kind.replace('_', ' ')}: {first_names}{remainder}")
    pretrained_model: PreTrainedModel = model
    return pretrained_model


def first_line(error: Exception) -> str:
    """The first line of an error's text, else its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
