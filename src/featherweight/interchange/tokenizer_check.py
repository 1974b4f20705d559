"""The two readers of a folder's tokenizer, compared before anything is done with its model.

Calibration and evaluation cut text with transformers' `AutoTokenizer`, which for some values of
`tokenizer_class` builds its own splitting rule; generation reads the same files without
transformers. `probe_of` gives both the texts of a probe and refuses a folder where they differ.
Whoever writes a folder stores the probe there (`inference/text/probe.py`), and generation compares
itself with it at each start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base.errors import BadInput
from ..base.files import write_atomic
from ..inference.text.probe import (
    PROBE,
    ProbeText,
    find_difference,
    make_probe,
    probe_texts,
    read_probe,
    to_json,
)
from ..inference.text.tokenizer import TOKENIZER, ChatTokenizer
from .pretrained import reason

# Files from which transformers makes a tokenizer.
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "vocab.*", "*.model", "*.tiktoken")


def load_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer of a model folder. Raises BadInput when it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise BadInput(f"{folder}: the tokenizer cannot be loaded ({reason(error)})") from error


def load_checked_tokenizer(folder: Path) -> Any:
    """As `load_tokenizer`. Raises BadInput, showing the first difference, where generation would
    cut text in another way.
    """
    tokenizer = load_tokenizer(folder)
    _check(folder, tokenizer)
    return tokenizer


def probe_of(folder: Path, tokenizer: Any = None) -> list[ProbeText] | None:
    """The probe of the tokenizer in `folder`; None when the folder holds none.

    Args: tokenizer, the one in memory that was saved to `folder`, when there is one. Raises
    BadInput, showing the first difference, unless transformers, the engines' reader and `tokenizer`
    give the same ids.
    """
    if not any(path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        return None
    saved_tokenizer = load_tokenizer(folder)
    probe = _check(folder, saved_tokenizer)
    if tokenizer is not None:
        difference = find_difference(probe, TransformersReader(tokenizer), "the one in memory")
        if difference is not None:
            raise BadInput(
                f"{folder}: the tokenizer that was saved, loaded again by transformers as "
                f"{type(saved_tokenizer).__name__}, is another one: {difference}"
            )
    return probe


def write_probe(folder: Path, probe: Sequence[ProbeText] | None) -> None:
    """Store `probe` in `folder`; a folder without a tokenizer gets none."""
    if probe is not None:
        write_atomic(folder / PROBE, to_json(probe))


class TransformersReader:
    """A transformers tokenizer with the methods that a probe needs."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids with those that the tokenizer puts around every text."""
        try:
            return [int(id_) for id_ in self._tokenizer(text, verbose=False).input_ids]
        except Exception as error:  # the tokenizers library raises bare Exceptions
            raise BadInput(f"the tokenizer cannot encode text: {reason(error)}") from error

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` without special tokens, spaces as they are."""
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def token_text(self, id: int) -> str:
        """The text of one token."""
        return str(self._tokenizer.decode([id]))


def _check(folder: Path, tokenizer: Any) -> list[ProbeText]:
    """The probe of `tokenizer`, which transformers loaded from `folder`; BadInput when the engines'
    reader or a stored probe differs.
    """
    added_tokens = dict.fromkeys(tokenizer.get_added_vocab())
    reader = None
    if (folder / TOKENIZER).is_file():
        reader = ChatTokenizer.read(folder)
        added_tokens |= dict.fromkeys(reader.added_tokens)
    probe = make_probe(TransformersReader(tokenizer), probe_texts(list(added_tokens)))
    difference = None if reader is None else find_difference(probe, reader, TOKENIZER)
    if difference is not None:
        raise BadInput(
            f"{folder}: transformers, which reads the tokenizer as {type(tokenizer).__name__}, and "
            f"{TOKENIZER} cut text differently, so the model would be used on other tokens than it "
            f"is measured on: {difference}. To use transformers' rule, save its tokenizer: "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r}); to "
            f'use that of {TOKENIZER}, write "tokenizer_class": "PreTrainedTokenizerFast" in '
            "tokenizer_config.json (for some families, such as Qwen2, transformers knows one rule "
            "only)"
        )
    if (folder / PROBE).is_file():
        _check_stored(folder, tokenizer)
    return probe


def _check_stored(folder: Path, tokenizer: Any) -> None:
    """Raise BadInput when `folder` stores a probe and `tokenizer` gives other ids."""
    reader = TransformersReader(tokenizer)
    difference = find_difference(read_probe(folder / PROBE), reader, "this one")
    if difference is not None:
        raise BadInput(
            f"{folder}: its tokenizer files, or this version of transformers, do not give the "
            f"tokens that its model was measured on: {difference.replace('transformers', PROBE)}. "
            f"Fetch or write the folder again; to use the files as they are, delete {PROBE}"
        )
