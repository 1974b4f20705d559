"""A task's prompt as the model reads it: plain text, or a user's message in the chat template.

Plain text begins with the tokens that the tokenizer puts before every text (a BOS). A chat
template writes its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..data.tasks import Task, TaskExample
from ..inference.text.tokenizer import ChatTokenizer
from .likelihood import encode_pair


@dataclass(frozen=True)
class PromptWriter:
    """Writes the prompts of `task` for the model of `tokenizer`; with `chat` through its chat
    template.
    """

    tokenizer: ChatTokenizer
    task: Task
    chat: bool

    def text(self, example: TaskExample) -> str:
        """The prompt as text."""
        prompt = self.task.prompt(example)
        if not self.chat:
            return prompt
        return self.tokenizer.render([{"role": "user", "content": prompt}])

    def encode(self, text: str) -> list[int]:
        """The token ids of a prompt."""
        return self.tokenizer.encode_plain(text) if self.chat else self.tokenizer.encode(text)

    def pairs(self, example: TaskExample) -> list[tuple[list[int], list[int]]]:
        """The token ids of the prompt and of each choice behind it."""
        # As in lm-evaluation-harness: behind the template's last line a choice needs no space.
        no_space = self.chat and self.task.kind == "choices"
        delimiter = "" if no_space else self.task.delimiter
        text = self.text(example)
        return [
            encode_pair(self.encode, text, f"{delimiter}{choice}")
            for choice in self.task.choices(example)
        ]

    def describe(self, example: TaskExample) -> dict[str, Any]:
        """How prompts are written, with that of `example`: for results.json."""
        text = self.text(example)
        ids = self.encode(text)
        probe = self.tokenizer.encode("a")
        num_plain = len(self.tokenizer.encode_plain("a"))
        return {
            "chat": self.chat,
            "chat_template": self.tokenizer.template_digest if self.chat else None,
            "bos": [] if self.chat else probe[: max(0, len(probe) - num_plain)],
            "first_prompt": text,
            "first_ids": ids,
        }
