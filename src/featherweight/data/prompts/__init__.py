"""A hundred prompts of our own writing, for the check that a model can still talk: questions, forms
that a program can check, prose and code to be continued, lists, conversations of several turns, and
other languages than English.

`prompts.jsonl` holds one a line, in an order in which every beginning has several kinds. A line has
the `turns` of a conversation, which begins and ends with the user's, or a `text` that any model can
continue; `form` names the check of the answer's form (`forms.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from ...base.errors import UsageError
from .forms import FORMS

__all__ = ["FORMS", "NUM_PROMPTS", "Prompt", "load_prompts"]

NUM_PROMPTS = 100


@dataclass(frozen=True)
class Prompt:
    """One prompt: the `turns` of a conversation, user and assistant in turn, or a plain `text`.

    form: the name of the check of the answer's form, None where any form will do; arguments: those
    of the check.
    """

    kind: str
    turns: tuple[str, ...] = ()
    text: str = ""
    form: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation as chat templates read it; empty for a plain text."""
        roles = ("user", "assistant")
        return [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(self.turns)]

    @property
    def plain_text(self) -> str:
        """The prompt for a model without a chat template, which continues it."""
        if self.text:
            return self.text
        labels = ("Question", "Answer")
        lines = [f"{labels[i % 2]}: {turn}" for i, turn in enumerate(self.turns)]
        return "\n".join([*lines, "Answer:"])

    def has_form(self, answer: str) -> bool:
        """Whether `answer` has the form that was asked for; True where any form will do."""
        return self.form is None or bool(FORMS[self.form](answer, **self.arguments))


def load_prompts(count: int) -> list[Prompt]:
    """The first `count` prompts. Raises UsageError when there are fewer."""
    if not 0 <= count <= NUM_PROMPTS:
        raise UsageError(f"{count} prompts: there are {NUM_PROMPTS}")
    lines = (files(__package__) / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [_read(json.loads(line)) for line in lines[:count]]


def _read(row: Mapping[str, Any]) -> Prompt:
    form = row.get("form", {})
    return Prompt(
        row["kind"],
        tuple(row.get("turns", ())),
        row.get("text", ""),
        form.get("check"),
        form.get("arguments", {}),
    )
