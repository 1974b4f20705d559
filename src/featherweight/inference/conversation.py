"""Talk to a model: a conversation that remembers its turns and streams its answers.

Generation itself is transformers' (`model.generate` with its cache and samplers); this file adds the chat template, the
stream of finished words, and the guard that a compressed model decodes its weights once for all turns, not once a token.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from ..base.errors import UsageError
from ..quantization.layers import decoded

SECONDS_WITHOUT_TOKEN = 600.0


class Conversation:
    """Turns of user and assistant; calling it adds a turn and yields the answer piece by piece.

    temperature 0 is greedy. Raises UsageError for impossible sampling values. Use as a context manager, or `close`.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        system: str | None = None,
        max_new_tokens: int = 512,
        temperature: float = 0.7,
        top_p: float = 0.95,
        seed: int = 0,
    ) -> None:
        if max_new_tokens < 1:
            raise UsageError(f"max_new_tokens={max_new_tokens}: at least 1")
        if not 0 <= temperature <= 10 or not 0 < top_p <= 1:
            raise UsageError(f"temperature={temperature} must be 0 to 10 and top_p={top_p} above 0, at most 1")
        self.model, self.tokenizer, self.seed = model, tokenizer, seed
        self.sampling: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
        if temperature > 0:
            self.sampling |= {"temperature": temperature, "top_p": top_p, "top_k": 0}
        self.messages = [] if system is None else [{"role": "system", "content": system}]
        self._stack = ExitStack()
        self._stack.enter_context(decoded(model))

    def __call__(self, question: str) -> Iterator[str]:
        self.messages.append({"role": "user", "content": question})
        pieces: list[str] = []
        for piece in self._stream(prompt_ids(self.tokenizer, self.messages)):
            pieces.append(piece)
            yield piece
        self.messages.append({"role": "assistant", "content": "".join(pieces)})

    def _stream(self, ids: torch.Tensor) -> Iterator[str]:
        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(
            self.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=SECONDS_WITHOUT_TOKEN
        )
        failure: list[BaseException] = []
        ids = ids.to(next(self.model.parameters()).device)

        def work() -> None:
            try:
                torch.manual_seed(self.seed)
                with torch.no_grad():
                    self.model.generate(  # type: ignore[operator]
                        input_ids=ids, attention_mask=torch.ones_like(ids), streamer=streamer, **self.sampling
                    )
            except BaseException as error:
                failure.append(error)
                streamer.end()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield from streamer
        thread.join()
        if failure:
            raise failure[0]

    def close(self) -> None:
        """Drop the decoded weights."""
        self._stack.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def prompt_ids(tokenizer: Any, messages: list[dict[str, str]]) -> torch.Tensor:
    """(1, seq) token ids that ask for the next answer; without a chat template, the plain text of the turns."""
    if getattr(tokenizer, "chat_template", None):
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    text = "\n".join(message["content"] for message in messages)
    return tokenizer(text, return_tensors="pt").input_ids


def answer(model: nn.Module, tokenizer: Any, question: str, max_new_tokens: int = 96) -> str:
    """One greedy answer."""
    with Conversation(model, tokenizer, max_new_tokens=max_new_tokens, temperature=0.0) as talk:
        return "".join(talk(question)).strip()
