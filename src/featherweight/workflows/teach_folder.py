"""The shell's `teach`: a model answers a text, and its answers are kept on disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from .. import data
from ..base.events import Listener, silent
from ..interchange import loading
from ..interchange.source import Source
from ..interchange.tokenizer_check import load_checked_tokenizer
from ..models.answers import Answers, Kind, TopK, write_answers
from ..models.answers.header import file_name
from ..quantization.layers import keep_decoded
from .evidence import read_text
from .preflight import check_length


def teach_folder(
    model: str | Path,
    text: str | Path,
    out: str | Path,
    kind: Kind | None = None,
    *,
    windows: int | None = None,
    length: int = 1024,
    bos: str = "auto",
    temperature: float = 1.0,
    seed: int = 0,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Write the answers of `model` about `text` to the folder `out`, and return the facts of their
    header, their bytes and the seconds.

    Args: model, an alias, folder, GGUF file or hub id; text, a file or the name of a shipped text;
    kind, what is kept of each distribution (None: 64 tokens and the mass of the others); windows,
    how many, of `length` tokens each (None: all of the text); bos, whether each window starts with
    the BOS, as in `data.first_tokens`; temperature, of the distributions; seed, of draws. A killed
    run continues. Raises UsageError for impossible settings and for a folder of other answers,
    BadInput for a model or text that cannot be used, PreflightRefused when the disk is too small.
    """
    start = time.monotonic()
    source = Source.find(model, listener)
    check_length(source, length, "--length N")
    tokenizer = load_checked_tokenizer(source.path)
    tokens = data.windows(tokenizer, read_text(str(text)), length, windows, bos)
    light, _ = loading.load(source.path, dtype=torch.float32)
    with keep_decoded(light):
        answers = write_answers(
            light,
            tokens,
            out,
            kind or TopK(),
            tokenizer=tokenizer,
            model_id=source.fingerprint,
            name=source.display_name,
            text_name=Path(text).name,
            bos=bool(data.first_tokens(tokenizer, bos)),
            temperature=temperature,
            seed=seed,
            listener=listener,
        )
    return facts(answers) | {"seconds": round(time.monotonic() - start, 2)}


def facts(answers: Answers) -> dict[str, Any]:
    """What a set of answers holds, as plain data."""
    header = answers.header
    files = (answers.folder / file_name(index) for index in range(header.num_files))
    num_bytes, num_tokens = (
        sum(file.stat().st_size for file in files),
        header.windows * header.length,
    )
    return {
        "folder": str(answers.folder),
        "model": header.name,
        "text": header.text_name,
        "kind": header.kind.settings(),
        "temperature": header.temperature,
        "bos": header.bos,
        "windows": header.windows,
        "length": header.length,
        "tokens": num_tokens,
        "vocabulary": header.vocabulary,
        "file_bytes": num_bytes,
        "bytes_per_token": round(num_bytes / num_tokens, 1),
    }
