"""`write_answers`: runs a model over a text and keeps its answers on disk.

One window is in memory at a time. A file holds about FILE_BYTES, is written under another name and
renamed, and is skipped when it exists: a killed run continues after its last file. Nothing reads a
set before it is complete.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors.torch import save_file
from torch import Tensor, nn

from ...base import machine
from ...base.errors import BadInput, PreflightRefused, UsageError
from ...base.events import Listener, silent, track
from ...base.files import remove_leftovers, write_atomic
from ...base.seeds import seed_of
from ..structure import evaluation_mode
from .folder import Answers, read_header, template_hash, text_hash, tokenizer_hash
from .header import Header, file_name
from .kinds import Kind, TopK

FILE_BYTES = 64 << 20


def write_answers(
    model: nn.Module,
    tokens: Int[Tensor, "windows positions"],
    folder: Path | str,
    kind: Kind | None = None,
    *,
    tokenizer: Any,
    model_id: str,
    name: str = "",
    text_name: str = "text",
    bos: bool | None = None,
    temperature: float = 1.0,
    vocabulary: int | None = None,
    seed: int = 0,
    listener: Listener = silent,
) -> Answers:
    """The answers of `model` about `tokens`, written to `folder` where they are missing.

    tokens: as `data.windows` returns them. kind: what is kept (None: `TopK()`). model_id:
    identifies the weights. name, text_name, bos: for the header. vocabulary: leave out the logits
    of ids from this one on, which pad the table. Raises UsageError for an impossible kind or
    temperature or a folder of other answers, PreflightRefused when the disk is too small, BadInput
    when the model gives numbers that are not finite or the disk is full.
    """
    kind, folder = kind or TopK(), Path(folder)
    vocabulary = _vocabulary(model, tokens, vocabulary)
    kind.check(vocabulary, temperature)
    length = tokens.shape[1] - 1
    window_bytes = length * kind.bytes_per_position(vocabulary) + 4 * tokens.shape[1]
    header = Header(
        kind=kind,
        temperature=float(temperature),
        vocabulary=vocabulary,
        windows=len(tokens),
        length=length,
        windows_per_file=max(1, FILE_BYTES // window_bytes),
        text=text_hash(tokens),
        tokenizer=tokenizer_hash(tokenizer),
        template=template_hash(tokenizer),
        model=model_id,
        seed=seed,
        name=name,
        text_name=text_name,
        bos=bos,
    )
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    gaps = _gaps(header, folder)
    _check_disk(folder, window_bytes, header, gaps)
    _write_files(model, tokens, folder, header, gaps, listener)
    return Answers.open(folder)


def _write_files(
    model: nn.Module,
    tokens: Tensor,
    folder: Path,
    header: Header,
    gaps: list[int],
    listener: Listener,
) -> None:
    """Write the files with the numbers `gaps`."""
    windows = [window for index in gaps for window in _windows_of(header, index)]
    steps = track(iter(windows), "answers", len(windows), listener)
    for index in gaps:
        rows = [
            _answer(model, tokens[window], header, window)
            for window, _ in zip(_windows_of(header, index), steps, strict=False)
        ]
        tensors = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        tensors["tokens"] = tokens[list(_windows_of(header, index))].to(torch.int32)
        write = partial(save_file, tensors, metadata=header.metadata())
        write_atomic(folder / file_name(index), write)
    next(steps, None)


def size_bytes(kind: Kind, vocabulary: int, windows: int, length: int) -> int:
    """The size of a set of answers on disk."""
    return windows * (length * kind.bytes_per_position(vocabulary) + 4 * (length + 1))


def _windows_of(header: Header, index: int) -> range:
    first = index * header.windows_per_file
    return range(first, min(first + header.windows_per_file, header.windows))


def _gaps(header: Header, folder: Path) -> list[int]:
    """The files that must be written; UsageError when the folder holds those of other answers."""
    gaps = []
    for index in range(header.num_files):
        path = folder / file_name(index)
        if not path.is_file():
            gaps.append(index)
            continue
        names = read_header(path).differences(header)
        if names:
            raise UsageError(
                f"{folder} holds other answers (these differ: {', '.join(names)}); "
                "choose another folder, or remove it"
            )
    return gaps


def _check_disk(folder: Path, window_bytes: int, header: Header, gaps: list[int]) -> None:
    num_bytes = sum(len(_windows_of(header, index)) for index in gaps) * window_bytes
    free = machine.free_disk_bytes(folder)
    if num_bytes > free:
        raise PreflightRefused(
            f"the answers need {num_bytes / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are "
            "free; keep fewer tokens (top-k), or choose another folder"
        )


def _vocabulary(model: nn.Module, tokens: Tensor, limit: int | None) -> int:
    """The columns of the model's logits, at most `limit`."""
    if tokens.ndim != 2 or tokens.shape[0] < 1 or tokens.shape[1] < 2:
        raise UsageError(f"tokens must be windows of two tokens or more, not {tuple(tokens.shape)}")
    size = _logits(model, tokens[0, :2]).shape[-1]
    limit = size if limit is None else limit
    if not int(tokens.max()) < limit <= size:
        raise UsageError(
            f"vocabulary={limit}: the text has tokens up to {int(tokens.max())}, and the model "
            f"{size} logits"
        )
    return limit


def _answer(model: nn.Module, window: Tensor, header: Header, index: int) -> dict[str, Tensor]:
    logits = _logits(model, window)[:, : header.vocabulary]
    if not torch.isfinite(logits).all():
        row = int((~torch.isfinite(logits)).any(-1).nonzero()[0])
        raise BadInput(
            f"the model gives numbers that are not finite in window {index}, at token {row}"
        )
    targets = window[1:].to(logits.device)
    seed = seed_of("answers", header.seed, index)
    tensors = header.kind.tensors(logits, targets, header.temperature, seed)
    return {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}


def _logits(model: nn.Module, window: Tensor) -> Tensor:
    """The logits about the successors of all tokens of a window but the last."""
    with evaluation_mode(model), torch.no_grad():
        device = next(model.parameters()).device
        logits: Tensor = model(window[None, :-1].to(device), use_cache=False).logits[0]
    return logits
