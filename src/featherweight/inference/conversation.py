"""Conversations with a model: turns are remembered and answers are streamed.

Every turn writes the whole conversation through the chat template. The session is then rewound to
the common prefix of the new prompt and the tokens that it holds, so only new tokens are computed. A
template may rewrite earlier turns (and drop old reasoning, say): then more tokens are computed, and
the answer is still that of a new session.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..base.errors import UsageError
from ..base.sampling import Sampling
from .engine import Engine
from .generation import Usage, generate
from .prefix_cache import PrefixCache
from .prefixes import common_prefix_length
from .text.tokenizer import ChatTokenizer

FIRST_CAPACITY = 1024  # tokens; at least doubled whenever a conversation needs more


class Conversation:
    """Turns of user and assistant. A call adds a turn and yields the text of the answer.

    Args: engine and its tokenizer; sampling, whose `max_tokens` is the longest answer (it is
    shorter where the context has less left); system, the system message; lookup, the number of
    draft tokens of prompt lookup (`prompt_lookup.py`); cache, where prompts are stored on disk. Use
    it as a context manager, or call `close`; the engine stays open.
    """

    usage: Usage | None = None  # of the latest answer

    def __init__(
        self,
        engine: Engine,
        tokenizer: ChatTokenizer,
        sampling: Sampling,
        system: str | None = None,
        *,
        lookup: int = 0,
        cache: PrefixCache | None = None,
    ) -> None:
        self.engine, self.tokenizer, self.sampling = engine, tokenizer, sampling
        self.messages = [] if system is None else [{"role": "system", "content": system}]
        self._lookup, self._cache = lookup, cache
        self._session = engine.session(min(engine.context, FIRST_CAPACITY))
        self._session_tokens: list[int] = []

    def __call__(self, question: str) -> Iterator[str]:
        """The answer to `question`, as text while it is generated.

        An answer that is not read to its end is remembered as far as it was read; a turn without an
        answer is forgotten. Raises UsageError when the context is full.
        """
        self.messages.append({"role": "user", "content": question})
        answer_text = ""
        try:
            for text in self._answer():
                answer_text += text
                if text:
                    yield text
        finally:
            if answer_text:
                self.messages.append({"role": "assistant", "content": answer_text})
            else:
                self.messages.pop()

    def _answer(self) -> Iterator[str]:
        prompt = self.tokenizer.chat(self.messages)
        room = self.engine.context - len(prompt)
        if room < 1:
            raise UsageError(
                f"the conversation has {len(prompt)} tokens, and the model's context is "
                f"{self.engine.context}; start a new one, or ask something shorter"
            )
        sampling = replace(self.sampling, max_tokens=min(self.sampling.max_tokens, room))
        self._reserve(len(prompt) + sampling.max_tokens)
        self._session.rewind(common_prefix_length(self._session_tokens, prompt))
        generation = generate(
            self.engine,
            self.tokenizer,
            prompt,
            sampling,
            session=self._session,
            cache=self._cache,
            lookup=self._lookup,
        )
        try:
            for delta in generation:
                yield delta.text
        finally:
            generation.close()
            self._session_tokens = generation.ids[: self._session.length]
            self.usage = generation.usage

    def _reserve(self, capacity: int) -> None:
        """Replace the session by one of at least `capacity` tokens that holds the same tokens."""
        old = self._session
        if capacity <= old.capacity:
            return
        self._session = self.engine.session(
            min(self.engine.context, max(capacity, 2 * old.capacity))
        )
        self._session.restore(old.state(), old.length)
        old.close()

    def close(self) -> None:
        """Release the memory of the session."""
        self._session.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def answer(engine: Engine, tokenizer: ChatTokenizer, question: str, max_tokens: int = 96) -> str:
    """The greedy answer to one question, of at most `max_tokens` tokens, without spaces around it.

    Raises UsageError when the question does not fit the context.
    """
    sampling = Sampling(max_tokens, temperature=0)
    with Conversation(engine, tokenizer, sampling) as conversation:
        return "".join(conversation(question)).strip()
