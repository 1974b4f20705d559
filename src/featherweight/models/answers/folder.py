"""`Answers`: a complete set of files, read one window at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...base.errors import BadInput, UsageError
from .header import Header, file_name
from .rows import FullAnswer, SparseAnswer

# Any text shows how a tokenizer cuts; this one has what tokenizers treat differently.
PROBE = "The café's 1,234 naïve  users:\n\tdon't — 日本語 🙂 x_1 = 2.5e-3;"


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers in a folder: `len(answers)` windows, `answers[i]` is read when it is asked for.

    A set with full answers stands in for the model that gave them: `answers(tokens).logits`.
    """

    folder: Path
    header: Header

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        tokenizer: Any = None,
        tokens: Int[Tensor, "windows positions"] | None = None,
        temperature: float | None = None,
    ) -> Answers:
        """The set in `folder`.

        tokenizer, tokens, temperature: what the reader works with, where it matters. Raises
        BadInput when files are missing or damaged, or hold answers of another tokenizer or text;
        UsageError for another temperature.
        """
        folder = Path(folder)
        if not (folder / file_name(0)).is_file():
            raise BadInput(f"{folder} holds no answers; fw teach MODEL TEXT --out {folder}")
        header = read_header(folder / file_name(0))
        answers = cls(folder, header)
        gaps = [
            file_name(index)
            for index in range(header.num_files)
            if not (folder / file_name(index)).is_file()
        ]
        if gaps:
            raise BadInput(
                f"{folder} lacks {len(gaps)} of {header.num_files} files, such as {gaps[0]}; "
                "the command that wrote it continues"
            )
        for index in range(1, header.num_files):
            names = read_header(folder / file_name(index)).differences(header)
            if names:
                raise BadInput(
                    f"{folder}: {file_name(index)} belongs to other answers "
                    f"(these differ: {', '.join(names)})"
                )
        answers.check(tokenizer, tokens, temperature)
        return answers

    def check(self, tokenizer: Any, tokens: Tensor | None, temperature: float | None) -> None:
        """Raise as `open` does."""
        header = self.header
        if tokenizer is not None and tokenizer_hash(tokenizer) != header.tokenizer:
            raise BadInput(
                f"{self.folder} holds answers about other tokens than this tokenizer's; answer "
                "again with the model's own, or distil across tokenizers"
            )
        if tokens is not None and text_hash(tokens) != header.text:
            raise BadInput(
                f"{self.folder} holds answers about another text, or the same text cut otherwise "
                f"({header.windows} windows of {header.length} tokens)"
            )
        is_full = header.kind.name == "full"
        if temperature is not None and not is_full and temperature != header.temperature:
            raise UsageError(
                f"{self.folder} holds probabilities at temperature {header.temperature}, which "
                f"cannot be turned into those at {temperature}; answer again, or keep full answers"
            )

    def __len__(self) -> int:
        return self.header.windows

    def __getitem__(self, window: int) -> FullAnswer | SparseAnswer:
        """The answer about one window. Raises IndexError beyond the last, BadInput for a damaged
        file or numbers that are not finite.
        """
        if not 0 <= window < len(self):
            raise IndexError(f"window {window} of {len(self)}")
        index, place = divmod(window, self.header.windows_per_file)
        path = self.folder / file_name(index)
        tensors = {}
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - a file of safetensors is no mapping
                    tensors[name] = file.get_slice(name)[place]
        except (OSError, SafetensorError) as error:
            raise BadInput(f"{path} cannot be read ({error}); write the answers again") from error
        tokens = tensors.pop("tokens").to(torch.int64)
        return self.header.kind.read(tokens, tensors)

    def __iter__(self) -> Iterator[FullAnswer | SparseAnswer]:
        return (self[window] for window in range(len(self)))

    @property
    def tokens(self) -> Int[Tensor, "windows positions"]:
        """The text that was answered."""
        rows = []
        for index in range(self.header.num_files):
            with safe_open(self.folder / file_name(index), framework="pt") as file:
                rows.append(file.get_tensor("tokens").to(torch.int64))
        return torch.cat(rows)

    def __call__(
        self, input_ids: Int[Tensor, "one length"], *, use_cache: bool = False
    ) -> SimpleNamespace:
        """An object whose `logits` are those that the model gave for this window, (1, length,
        vocabulary). Raises UsageError for answers without logits, BadInput for another text.
        """
        if self.header.kind.name != "full":
            raise UsageError(f"{self.folder} holds no logits, but {self.header.kind.name} answers")
        answer = self.find(input_ids[0])
        assert isinstance(answer, FullAnswer)
        return SimpleNamespace(logits=answer.logits[None])

    def find(self, inputs: Int[Tensor, " length"]) -> FullAnswer | SparseAnswer:
        """The answer about the window whose first tokens are `inputs`. Raises BadInput when there
        is none.
        """
        window = self._places.get(_key(inputs))
        if window is None:
            raise BadInput(f"{self.folder} holds no answers about this text")
        return self[window]

    @cached_property
    def _places(self) -> dict[bytes, int]:
        """Inputs of a window -> its number."""
        return {_key(row[:-1]): window for window, row in enumerate(self.tokens)}


def holds_answers(folder: Path | str) -> bool:
    """Whether `folder` holds files of answers, complete or not."""
    return any(Path(folder).glob("answers-*.safetensors"))


def read_header(path: Path) -> Header:
    """The header of one file. Raises BadInput when it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return Header.read(file.metadata(), str(path))
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} cannot be read ({error}); write the answers again") from error


def text_hash(tokens: Int[Tensor, "windows positions"]) -> str:
    """SHA-256 of the ids and of how they are cut into windows."""
    digest = hashlib.sha256(f"{tuple(tokens.shape)}".encode())
    digest.update(tokens.cpu().to(torch.int64).numpy().tobytes())
    return digest.hexdigest()


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer's vocabulary and of how it cuts a probe text."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    ids = list(tokenizer(PROBE, add_special_tokens=False).input_ids)
    return hashlib.sha256(json.dumps([vocabulary, ids]).encode()).hexdigest()


def template_hash(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer's chat template; "" without one."""
    template = getattr(tokenizer, "chat_template", None)
    return "" if not template else hashlib.sha256(json.dumps(template).encode()).hexdigest()


def _key(inputs: Tensor) -> bytes:
    return hashlib.sha256(inputs.cpu().to(torch.int64).numpy().tobytes()).digest()
