"""Talk to a model: a conversation that remembers its turns and streams its answers.

Every turn is written through the chat template from the start, and the session is rewound to where
the new prompt parts from what it holds; so only new tokens are computed, and a template that
rewrites earlier turns (dropping old reasoning) costs time, not truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..base.errors import UsageError
from .engine import Engine
from .generation import Cache, Usage, generate
from .sampling import Sampling
from .text.tokenizer import ChatTokenizer

FIRST_CAPACITY = 1024  # tokens; doubled when a conversation grows


class Conversation:
    """Turns of user and assistant; calling it adds a turn and yields the answer piece by piece.

    `sampling.max_tokens` is the longest answer; less when the context has less left. With `lookup`
    tokens are guessed by copying (`lookup.py`), with `cache` prompts are remembered on disk. Use as
    a context manager, or `close`; the engine stays open.
    """

    usage: Usage | None = None  # of the latest answer

    def __init__(
        self,
        engine: Engine,
        text: ChatTokenizer,
        sampling: Sampling,
        system: str | None = None,
        *,
        lookup: int = 0,
        cache: Cache | None = None,
    ) -> None:
        self.engine, self.text, self.sampling = engine, text, sampling
        self.messages = [] if system is None else [{"role": "system", "content": system}]
        self._lookup, self._cache = lookup, cache
        self._session = engine.session(min(engine.context, FIRST_CAPACITY))
        self._held: list[int] = []  # the tokens in the session

    def __call__(self, question: str) -> Iterator[str]:
        """The answer to `question`. Raises UsageError when the context is full; the turn is
        forgotten then.

        An answer that is not listened to till the end is remembered as far as it went.
        """
        self.messages.append({"role": "user", "content": question})
        said = ""
        try:
            for piece in self._answer():
                said += piece
                if piece:
                    yield piece
        finally:
            if said:
                self.messages.append({"role": "assistant", "content": said})
            else:
                self.messages.pop()

    def _answer(self) -> Iterator[str]:
        prompt = self.text.chat(self.messages)
        room = self.engine.context - len(prompt)
        if room < 1:
            raise UsageError(
                f"the conversation has {len(prompt)} tokens, and the model's context is {self.engine.context}; "
                "start a new one, or ask something shorter"
            )
        sampling = replace(self.sampling, max_tokens=min(self.sampling.max_tokens, room))
        self._reserve(len(prompt) + sampling.max_tokens)
        shared = next(
            (i for i, (a, b) in enumerate(zip(self._held, prompt, strict=False)) if a != b), None
        )
        self._session.rewind(min(len(self._held), len(prompt)) if shared is None else shared)
        run = generate(
            self.engine,
            self.text,
            prompt,
            sampling,
            session=self._session,
            cache=self._cache,
            lookup=self._lookup,
        )
        try:
            for piece in run:
                yield piece.text
        finally:
            run.close()
            self._held, self.usage = run.ids[: self._session.length], run.usage

    def _reserve(self, capacity: int) -> None:
        """A session of at least `capacity` tokens that holds the same."""
        old = self._session
        if capacity <= old.capacity:
            return
        self._session = self.engine.session(
            min(self.engine.context, max(capacity, 2 * old.capacity))
        )
        self._session.restore(old.state(), old.length)
        old.close()

    def close(self) -> None:
        """Give the memory of the session back."""
        self._session.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def answer(engine: Engine, text: ChatTokenizer, question: str, max_tokens: int = 96) -> str:
    """One greedy answer."""
    with Conversation(engine, text, Sampling(max_tokens, temperature=0)) as talk:
        return "".join(talk(question)).strip()
