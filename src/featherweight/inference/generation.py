"""The generation loop: compute the prompt, then choose one token after the other and append it.

`generate` checks its arguments at once, and computes when the first delta is asked for; a caller
that stops asking stops the work. At every moment the session holds a prefix of prompt and answer,
and at least all tokens but the last. So it can serve the next turn, also when the caller stops in
the middle of an answer.

With `lookup` several draft tokens are checked in one forward. The sampler sees the same logits in
the same order and draws once a token, so the text is the same as without, greedy or seeded.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..base.errors import UsageError
from ..base.sampling import Sampling
from .answer_builder import AnswerBuilder, Mask, TextDelta
from .engine import Engine, Session
from .prefix_cache import PrefixCache
from .prompt_lookup import PromptLookup
from .text.tokenizer import ChatTokenizer

MAX_LOOKUP = 64


@dataclass(frozen=True)
class Usage:
    """How many tokens an answer used.

    prompt_tokens and completion_tokens: of prompt and answer. cached_tokens: those of the prompt
    whose keys and values were in a cache. draft_tokens: proposed by prompt lookup; accepted_tokens:
    those of them that the sampler chose too.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    draft_tokens: int = 0
    accepted_tokens: int = 0


def generate(
    engine: Engine,
    tokenizer: ChatTokenizer,
    prompt_ids: Sequence[int],
    sampling: Sampling,
    *,
    session: Session | None = None,
    cache: PrefixCache | None = None,
    lookup: int = 0,
    mask: Mask | None = None,
) -> Generation:
    """The answer to a prompt, one `TextDelta` a token, computed while it is read.

    Args: tokenizer, that of the engine's model; prompt_ids, the token ids of the prompt; sampling,
    how to choose tokens and where to stop; session, a session that holds the first `session.length`
    tokens of the prompt already (the caller guarantees it), and holds `Generation.ids[:
    session.length]` afterwards (None: one that is closed with the generation); cache, where
    prefixes of earlier texts are looked up and the new one is stored; lookup, the number of draft
    tokens to check at once (0: none); mask, which tokens may come next.

    Raises UsageError, before any work, for an empty prompt or one that leaves less than
    `max_tokens` of the context.
    """
    if not len(prompt_ids):
        raise UsageError("the prompt is empty; give at least one token")
    limit = engine.context if session is None else session.capacity
    if len(prompt_ids) + sampling.max_tokens > limit:
        raise UsageError(
            f"the prompt has {len(prompt_ids)} tokens and the answer may have "
            f"{sampling.max_tokens}, together more than the {limit} that "
            f"{'the model' if session is None else 'this session'} can hold; "
            + ("ask for fewer" if len(prompt_ids) < limit else "shorten the prompt")
        )
    if not 0 <= lookup <= MAX_LOOKUP:
        raise UsageError(f"lookup={lookup}: 0 to {MAX_LOOKUP} tokens")
    return Generation(engine, tokenizer, prompt_ids, sampling, session, cache, lookup, mask)


class Generation(Iterator[TextDelta]):
    """The deltas of one answer and the tokens that it used; made by `generate`."""

    ids: list[int]  # prompt and answer so far

    def __init__(
        self,
        engine: Engine,
        tokenizer: ChatTokenizer,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        session: Session | None,
        cache: PrefixCache | None,
        lookup: int,
        mask: Mask | None,
    ) -> None:
        self.ids = [int(id) for id in prompt_ids]
        self._engine, self._cache, self._lookup = engine, cache, lookup
        self._max_tokens = sampling.max_tokens
        self._prompt_tokens, self._cached_tokens = len(self.ids), 0
        self._draft_tokens = self._accepted_tokens = 0
        self._answer = AnswerBuilder(tokenizer, self.ids, sampling, mask)
        self._deltas = self._run(session)

    @property
    def usage(self) -> Usage:
        """The tokens that were used so far."""
        return Usage(
            self._prompt_tokens,
            self._cached_tokens,
            len(self._answer.tokens),
            self._draft_tokens,
            self._accepted_tokens,
        )

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> TextDelta:
        return next(self._deltas)

    def close(self) -> None:
        """End the answer here. A session that the caller gave stays usable."""
        self._deltas.close()

    def _run(self, callers_session: Session | None) -> Generator[TextDelta, None, None]:
        session = callers_session
        if session is None:
            session = self._engine.session(self._prompt_tokens + self._max_tokens)
        try:
            yield from self._decode(session)
            if self._cache is not None:
                self._rewind(session)
                self._cache.save(self._engine, session, self.ids[: session.length])
        finally:
            if callers_session is None:
                session.close()
            else:
                self._rewind(session)

    def _decode(self, session: Session) -> Iterator[TextDelta]:
        lookup = PromptLookup(self.ids) if self._lookup else None
        rows, drafts = self._prefill(session), list[int]()
        while True:
            # Row i holds the logits after draft i - 1. It is of use as long as all drafts before it
            # are the tokens that were chosen.
            for row, draft in zip(rows, [*drafts, None], strict=True):
                delta = self._answer.add(row)
                token = delta.tokens[0]
                self.ids.append(token)
                yield delta
                if delta.finish is not None:
                    return
                if lookup is not None:
                    lookup.append(token)
                if token != draft:
                    break
                self._accepted_tokens += 1
            self._rewind(session)
            if lookup is not None:
                remaining_tokens = self._max_tokens - len(self._answer.tokens)
                drafts = lookup.draft(min(self._lookup, remaining_tokens - 1))
            self._draft_tokens += len(drafts)
            if drafts:
                rows = self._engine.forward(session, [self.ids[-1], *drafts], logits="all")
            else:
                rows = self._engine.step([session], [self.ids[-1]])

    def _prefill(self, session: Session) -> NDArray[np.float32]:
        """Compute what the session does not hold of the prompt; the logits after its last token."""
        # The last token is computed even when the session holds all of them: its logits choose the
        # first token of the answer.
        if session.length >= self._prompt_tokens:
            session.rewind(self._prompt_tokens - 1)
        if self._cache is not None:
            self._cache.restore(self._engine, session, self.ids[:-1])
        self._cached_tokens = session.length
        return self._engine.forward(session, self.ids[session.length :])

    def _rewind(self, session: Session) -> None:
        """Forget draft tokens that were not chosen."""
        if session.length >= len(self.ids):
            session.rewind(len(self.ids) - 1)
