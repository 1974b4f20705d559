"""What every file of answers says about itself, in the metadata of its safetensors header.

So one file is understood without the others, and no reader takes answers of another model, text,
tokenizer or temperature for those that it wants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...base.errors import BadInput
from .kinds import KINDS, Kind

FORMAT, VERSION = "featherweight-answers", 1


def file_name(index: int) -> str:
    """The name of a file of a set of answers."""
    return f"answers-{index:05d}.safetensors"


@dataclass(frozen=True)
class Header:
    """The facts about a set of answers.

    model: identifies the weights (the fingerprint of a source). name, text_name: of model and text,
    for people. bos: whether each window starts with a BOS (None: not known). tokenizer, template:
    SHA-256 of the tokenizer and of its chat template ("" without one). text: SHA-256 of the ids of
    all windows. vocabulary: columns of the logits. windows, length: of the text; a
    window has length + 1 tokens. windows_per_file: of every file but the last.
    """

    kind: Kind
    temperature: float
    vocabulary: int
    windows: int
    length: int
    windows_per_file: int
    text: str
    tokenizer: str
    template: str
    model: str
    seed: int
    name: str = ""
    text_name: str = "text"
    bos: bool | None = None

    @property
    def num_files(self) -> int:
        """How many files the set has when it is complete."""
        return -(-self.windows // self.windows_per_file)

    def metadata(self) -> dict[str, str]:
        """As safetensors stores it: text to text."""
        facts = asdict(self) | {"kind": self.kind.settings(), "version": VERSION}
        # One entry, because safetensors writes several in random order.
        return {FORMAT: json.dumps(facts, sort_keys=True)}

    @classmethod
    def read(cls, metadata: Mapping[str, str] | None, file: str) -> Header:
        """The header of a file. Raises BadInput when it is no file of answers, or of a version
        that this one does not know.
        """
        if not metadata or FORMAT not in metadata:
            raise BadInput(f"{file} is no file of answers; fw teach writes them")
        try:
            facts: dict[str, Any] = json.loads(metadata[FORMAT])
            version = facts.pop("version")
            settings = dict(facts.pop("kind"))
            kind = KINDS[settings.pop("kind")](**settings)
            header = cls(kind=kind, **facts)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{file}: its header cannot be read ({error}); write it again") from (
                error
            )
        if version != VERSION:
            raise BadInput(
                f"{file} has version {version} of the format, this package reads {VERSION}"
            )
        return header

    def differences(self, header: Header) -> list[str]:
        """The names of the fields that differ, without those for people."""
        return [
            field.name
            for field in fields(self)
            if field.name not in ("name", "text_name")
            and getattr(self, field.name) != getattr(header, field.name)
        ]
