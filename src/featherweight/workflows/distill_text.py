"""What a student reads: windows of text, and prompts for texts that are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base.errors import BadInput, UsageError
from ..data import Calibration, calibration, calibration_from_files
from ..data.corpora import Dialogue, corpus
from ..data.tokens import encode, has_template, prefix, render
from ..data.user_files import read_documents

# Shipped questions, as the prompts of a model with a chat template.
QUESTIONS = ("instructions_chat", "tasks_chat", "math_chat", "code_chat")


def training_windows(
    tokenizer: Any, files: Sequence[Path], windows: int, length: int, seed: int
) -> Calibration:
    """`windows` sequences of `length` + 1 tokens of the user's files, or of the shipped texts for
    calibration.

    Raises BadInput for files that cannot be read or hold too little text.
    """
    if files:
        return calibration_from_files(
            tokenizer, *files, count=windows, length=length + 1, seed=seed
        )
    return calibration(tokenizer, windows, length + 1, seed)


def find_prompts(
    tokenizer: Any, file: Path | None, text: Calibration, count: int, length: int
) -> list[list[int]]:
    """The ids of `count` prompts: those of a file (JSON lines with prompt or messages), the shipped
    questions for a tokenizer with a chat template, or the first `length` tokens of windows of
    `text`.

    Raises BadInput when the file has none, UsageError when there are fewer windows.
    """
    if file is not None:
        documents = read_documents(file)
    elif has_template(tokenizer):
        documents = [d for name in QUESTIONS for d in corpus(name).documents()]
        # Every kind is met early: the corpora take turns in proportion to their sizes.
        step = max(1, len(documents) // count)
        documents = documents[::step]
    else:
        if count > len(text):
            raise UsageError(f"{count} prompts from {len(text)} windows; use more windows")
        return [row[:length].tolist() for row in text.tokens[:count]]
    prompts = []
    for document in documents[:count]:
        question = document.prompt if isinstance(document, Dialogue) else document
        prompts.append(prompt_ids(tokenizer, question))
    if not prompts:
        raise BadInput(f"{file} holds no prompts")
    return prompts


def prompt_ids(tokenizer: Any, question: str) -> list[int]:
    """The ids of a question: a user's turn where the tokenizer has a chat template, else the text
    after what the tokenizer puts before every text.
    """
    ids = encode(tokenizer, render(tokenizer, Dialogue(question)))
    return ids if has_template(tokenizer) else prefix(tokenizer) + ids
