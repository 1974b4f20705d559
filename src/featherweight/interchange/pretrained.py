"""Calls of transformers' classes. No problem passes unseen, and no code of a model folder runs.

transformers fills a missing tensor with random numbers and warns. Here a missing, unexpected or
ill-shaped tensor, pickled weights and code from the model's repository are refused. Every call says
`trust_remote_code=False`: without it transformers asks on standard output whether it may import the
folder's Python files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..base.errors import BadInput, FeatherweightError
from ..models.config import CONFIG, SCRATCH, read_config

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
NUM_LISTED_NAMES = 3
LONGEST_REASON = 600
TIE = "tie_word_embeddings"
# transformers makes an object for each layer, expert or label while it reads a configuration, so a
# damaged count would take all memory before any check. No published model comes near this limit.
COUNTS = re.compile(r"(?!max_).*(layers?|experts|labels|depth|blocks)$")
LARGEST_COUNT = 4096


def load_config(folder: Path) -> PreTrainedConfig:
    """transformers' configuration of the model in `folder`.

    The attention implementation that it names is ignored: the folder may come from a machine with
    another one, and transformers then chooses one that is installed here. Raises BadInput with
    transformers' whole reason when the file describes no model.
    """
    from transformers import AutoConfig

    settings = read_config(folder)
    check_counts(settings, folder / CONFIG)
    if settings.get("model_type") == SCRATCH:
        from ..models import scratch

        scratch.register()
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        forget_attention_implementation(config)
    except Exception as error:  # transformers' own kinds, and they change
        raise BadInput(
            f"{folder / CONFIG} does not describe a model that can be built: "
            f"{reason(error, settings)}"
        ) from error
    return config


def make_config(settings: Mapping[str, Any], place: Path) -> PreTrainedConfig:
    """The configuration of the model type that `settings` name, with these settings.

    Raises BadInput, naming `place`, when transformers refuses them.
    """
    from transformers import AutoConfig, PreTrainedConfig

    check_counts(settings, place)
    others = {key: value for key, value in settings.items() if key != "model_type"}
    try:
        # JSON has no infinity: transformers writes it as an object.
        others = PreTrainedConfig._decode_special_floats(others)
        config: PreTrainedConfig = AutoConfig.for_model(settings["model_type"], **others)
        forget_attention_implementation(config)
    except Exception as error:
        raise BadInput(
            f"{place} does not describe a model that can be built: {reason(error, settings)}"
        ) from error
    return config


def check_counts(settings: Mapping[str, Any], place: Path) -> None:
    """Raise BadInput, naming `place` and the key, for a number of layers, experts or labels that no
    model has.
    """
    for key, value in _scalars(settings):
        if isinstance(value, int) and value > LARGEST_COUNT and COUNTS.match(key):
            raise BadInput(
                f"{place}: {key} is {str(value)[:20]}, more than any model has "
                f"(at most {LARGEST_COUNT}); fetch the file again"
            )


def _scalars(settings: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth of nested configurations."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _scalars(value)
        else:
            yield str(key), value


def forget_attention_implementation(config: PreTrainedConfig) -> None:
    """Leave the choice of the attention implementation to transformers."""
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        if part is not None:
            part._attn_implementation = None


def untie(config: PreTrainedConfig) -> None:
    """Make `config` say that the head has a table of its own."""
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        if hasattr(part, TIE):
            setattr(part, TIE, False)


def build_skeleton(config: PreTrainedConfig, place: Path) -> nn.Module:
    """The causal language model of `config` on the meta device: modules and shapes, no numbers.

    It is in evaluation mode. Raises BadInput, naming `place`, when transformers cannot build it.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise BadInput(
            f"{place} is no causal language model that transformers can build: "
            f"{reason(error, config.to_dict())}"
        ) from error
    return model.eval()


def load_pretrained(folder: Path, dtype: torch.dtype | None) -> PreTrainedModel:
    """The causal language model in `folder`, in `dtype` (None: as stored).

    Raises BadInput, which names the folder and the tensors, when transformers cannot load the model
    or reports any problem with its tensors.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(folder)
    read: Any = AutoModelForCausalLM.from_pretrained
    try:
        # With `ignore_mismatched_sizes`, tensors of the wrong shape are listed in `info` and
        # refused by name below. Without it, transformers raises an error that names no tensor.
        model, info = read(
            folder,
            config=config,
            dtype=dtype or "auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except FeatherweightError:
        raise
    except Exception as error:
        raise BadInput(f"{folder} cannot be loaded: {reason(error)}") from error
    for kind in PROBLEMS:
        if names := sorted(map(str, info.get(kind) or ())):
            raise BadInput(f"{folder}: {kind.replace('_', ' ')}: {list_names(names)}")
    pretrained_model: PreTrainedModel = model
    return pretrained_model


def list_names(names: list[str]) -> str:
    """The first few of `names`, and how many more there are."""
    num_unlisted = len(names) - NUM_LISTED_NAMES
    remainder = f" and {num_unlisted} more" if num_unlisted > 0 else ""
    return ", ".join(names[:NUM_LISTED_NAMES]) + remainder


def reason(error: Exception, settings: Mapping[str, Any] | None = None) -> str:
    """The text of an error on one line, else its class.

    Very long texts are cut. Where transformers asks for permission to run code, the answer is given
    instead of the question. The text of a KeyError is a word that a table does not have; it is said
    so, with the key of `settings`, a model's configuration, that holds this word.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError) and len(error.args) == 1:
        keys = [key for key, value in _scalars(settings or {}) if value == error.args[0]]
        text = f"{' and '.join(keys) or 'a word'} is {text}, which it has no entry for"
    if "trust_remote_code" in text:
        return (
            "it needs Python code that comes with the model (auto_map in its configuration), which "
            "is never run here; only models that transformers itself implements can be used"
        )
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."
