"""Generation: prefill the prompt, then choose, show and append one token after the other.

`generate` checks its arguments at once and computes when the first piece is asked for; whoever
stops asking stops the work. The loop keeps one invariant: the session holds a beginning of prompt
and answer, all but the last token at most, so it can be used again for the next turn, also when a
consumer left in the middle.

With `lookup` several guessed tokens are checked in one forward. The sampler sees the same logits in
the same order and draws once a token, so the text is the same as without, greedy or seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..base.errors import UsageError
from .engine import Engine, Session
from .prompt_lookup import Lookup
from .sampling import Choice, Sampler, Sampling
from .text.streaming import TextStream
from .text.tokenizer import ChatTokenizer

Finish = Literal["stop", "length"]
# (tokens of the answer so far, logits (vocab,)) -> which tokens may come next (vocab,)
Mask = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.bool_]]
MAX_LOOKUP = 64


@dataclass(frozen=True, slots=True)
class Piece:
    """What a token added: its text ("" while a character or a stop string is incomplete), and why
    it was the last.
    """

    text: str
    tokens: tuple[int, ...]
    choices: tuple[Choice, ...]
    finish: Finish | None = None  # "stop": an end token or a stop string; "length": max_tokens


@dataclass(frozen=True)
class Usage:
    """Counts:

    `cached_tokens` of the prompt's were remembered; `accepted` of the `guessed` tokens were right.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    guessed: int = 0
    accepted: int = 0


@runtime_checkable
class Cache(Protocol):
    """Prefixes of earlier texts, kept somewhere."""

    def restore(self, engine: Engine, session: Session, ids: Sequence[int]) -> int:
        """Make `session` hold the longest known beginning of `ids`, if longer than now; its length
        after that.
        """
        ...

    def keep(self, engine: Engine, session: Session, ids: Sequence[int]) -> None:
        """Remember `session`, which holds `ids`."""
        ...


def generate(
    engine: Engine,
    text: ChatTokenizer,
    prompt_ids: Sequence[int],
    sampling: Sampling,
    *,
    session: Session | None = None,
    cache: Cache | None = None,
    lookup: int = 0,
    mask: Mask | None = None,
) -> Generation:
    """The answer to `prompt_ids`, a `Piece` a token; computed as it is asked for.

    `session` holds the first `session.length` tokens of the prompt already (the caller's promise)
    and is left holding `Generation.ids[: session.length]`; without one, a session lives as long as
    the generation. `lookup`: how many tokens to guess at a time. Raises UsageError, before any
    work, for an empty prompt or one that leaves less than `max_tokens` of the context.
    """
    if not len(prompt_ids):
        raise UsageError("the prompt is empty; give at least one token")
    limit = engine.context if session is None else session.capacity
    if len(prompt_ids) + sampling.max_tokens > limit:
        raise UsageError(
            f"the prompt has {len(prompt_ids)} tokens and the answer may have {sampling.max_tokens}, together more "
            f"than the {limit} that {'the model' if session is None else 'this session'} can hold; "
            + ("ask for fewer" if len(prompt_ids) < limit else "shorten the prompt")
        )
    if not 0 <= lookup <= MAX_LOOKUP:
        raise UsageError(f"lookup={lookup}: 0 to {MAX_LOOKUP} tokens")
    return Generation(engine, text, prompt_ids, sampling, session, cache, lookup, mask)


class Generation(Iterator[Piece]):
    """The pieces of one answer, with what it used; made by `generate`. `close` ends it early."""

    ids: list[int]  # prompt and answer so far

    def __init__(
        self,
        engine: Engine,
        text: ChatTokenizer,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        session: Session | None,
        cache: Cache | None,
        lookup: int,
        mask: Mask | None,
    ) -> None:
        self.ids = [int(id) for id in prompt_ids]
        self._engine, self._text, self._sampling = engine, text, sampling
        self._cache, self._mask, self._lookup = cache, mask, lookup
        self._prompt_tokens, self._cached = len(self.ids), 0
        self._guessed = self._accepted = 0
        self._sampler = Sampler(sampling, self.ids)
        self._stream = TextStream(text, sampling.stop)
        self._pieces = self._run(session)

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        done = len(self.ids) - self._prompt_tokens
        return Usage(self._prompt_tokens, self._cached, done, self._guessed, self._accepted)

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Stop here. The session, when it was given, stays usable."""
        self._pieces.close()

    def _run(self, given: Session | None) -> Generator[Piece, None, None]:
        session = given
        if session is None:
            session = self._engine.session(self._prompt_tokens + self._sampling.max_tokens)
        try:
            yield from self._answer(session)
            if self._cache is not None:
                self._rewind(session)
                self._cache.keep(self._engine, session, self.ids[: session.length])
        finally:
            if given is None:
                session.close()
            else:
                self._rewind(session)

    def _answer(self, session: Session) -> Iterator[Piece]:
        past = Lookup(self.ids) if self._lookup else None
        rows, guesses = self._prefill(session), list[int]()
        while True:
            for row, guess in zip(rows, [*guesses, None], strict=True):
                piece = self._choose(row)
                yield piece
                if piece.finish is not None:
                    return
                if past is not None:
                    past.append(piece.tokens[0])
                if piece.tokens[0] != guess:
                    break
                self._accepted += 1
            self._rewind(session)
            guesses = past.guess(min(self._lookup, self._left - 1)) if past is not None else []
            self._guessed += len(guesses)
            if guesses:
                rows = self._engine.forward(session, [self.ids[-1], *guesses], logits="all")
            else:
                rows = self._engine.step([session], [self.ids[-1]])

    def _prefill(self, session: Session) -> NDArray[np.float32]:
        # The last token is computed even when all are remembered: its logits choose the first token
        # of the answer.
        if session.length >= self._prompt_tokens:
            session.rewind(self._prompt_tokens - 1)
        if self._cache is not None:
            self._cache.restore(self._engine, session, self.ids[:-1])
        self._cached = session.length
        return self._engine.forward(session, self.ids[session.length :])

    def _choose(self, logits: NDArray[np.float32]) -> Piece:
        allowed = None
        if self._mask is not None:
            allowed = self._mask(np.array(self.ids[self._prompt_tokens :], np.int64), logits)
        choice = self._sampler.choose(logits, allowed)
        self.ids.append(choice.token)
        finish: Finish | None = None
        shown = ""
        if choice.token in self._text.end_ids:
            finish, shown = "stop", self._stream.finish()
        else:
            shown = self._stream.push(choice.token)
            if not self._stream.stopped and not self._left:
                finish, shown = "length", shown + self._stream.finish()
            if self._stream.stopped:
                finish = "stop"
        return Piece(shown, (choice.token,), (choice,), finish)

    @property
    def _left(self) -> int:
        return self._prompt_tokens + self._sampling.max_tokens - len(self.ids)

    def _rewind(self, session: Session) -> None:
        """Forget what was guessed beyond the tokens that were chosen."""
        if session.length >= len(self.ids):
            session.rewind(len(self.ids) - 1)
