"""Log-likelihoods of continuations through an engine, exact and with common prefixes computed once.

The tokens follow lm-evaluation-harness: context and continuation are tokenized together, and the
continuation's tokens are those behind the number of tokens that the context alone has. Spaces at
the end of the context are moved to the continuation first, because most tokenizers join a space
with the word that follows. A text that does not fit the model loses tokens at its beginning.

One session serves all texts: it is rewound to the prefix that it shares with the next one. So the
choices of a question cost the question once, and solved examples before all questions cost once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..base.errors import BadInput, UsageError
from ..inference.engine import Engine
from ..inference.prefixes import common_prefix_length
from ..ops.sampling import score_token


@dataclass(frozen=True)
class Likelihood:
    """Of one continuation: its log-probability in nats, whether greedy decoding would write it, its
    number of tokens, and whether the text was cut to fit the model.
    """

    logprob: float
    is_greedy: bool
    num_tokens: int
    is_truncated: bool = False


def encode_pair(
    encode: Callable[[str], list[int]], context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """The token ids of a context and of what follows it; `encode` gives those of a text.

    Raises UsageError for an empty context.
    """
    stripped_context = context.rstrip()
    if not context:
        raise UsageError("a likelihood needs a context; give at least a BOS")
    spaces = context[len(stripped_context) :]
    context_ids = encode(stripped_context)
    return context_ids, encode(stripped_context + spaces + continuation)[len(context_ids) :]


class LikelihoodScorer:
    """Scores continuations on one session of `engine`; a context manager that closes it.

    capacity: tokens of the longest text, at most the engine's context.
    """

    def __init__(self, engine: Engine, capacity: int | None = None) -> None:
        self.engine = engine
        # One token more than the session holds: the last one is predicted and never read.
        self.max_tokens = 1 + min(engine.context, capacity or engine.context)
        self._session = engine.session(self.max_tokens - 1)
        self._tokens: list[int] = []  # what the session holds
        self._last_row: NDArray[np.float32] | None = None  # the logits after these tokens

    def score(self, context: Sequence[int], continuation: Sequence[int]) -> Likelihood:
        """The likelihood of `continuation` (token ids) after `context`.

        Raises UsageError for an empty context or continuation, and for a continuation that does
        not fit the model; BadInput for logits that are not finite.
        """
        if not context or not continuation:
            raise UsageError("a likelihood needs a context and a continuation of one token or more")
        if len(continuation) >= self.max_tokens:
            raise UsageError(
                f"a continuation of {len(continuation)} tokens does not fit the "
                f"{self.max_tokens - 1} of this model"
            )
        room = self.max_tokens - len(continuation)
        ids = [*context[-room:], *continuation]
        num_context = len(ids) - len(continuation)
        self._advance(ids[:num_context])
        rows = [self._last_row, *self._read(ids[num_context:-1])]
        logprob, is_greedy = 0.0, True
        for token, row in zip(continuation, rows, strict=True):
            assert row is not None
            token_logprob = score_token(int(token), row, 0).logprob
            if token_logprob is None or not np.isfinite(token_logprob):
                raise BadInput("the model gives numbers that are not finite")
            logprob += token_logprob
            is_greedy &= int(row.argmax()) == token
        return Likelihood(logprob, is_greedy, len(continuation), len(context) > num_context)

    def _advance(self, context: list[int]) -> None:
        """Let the session hold exactly `context`, and `_last_row` the logits after it."""
        prefix_length = common_prefix_length(self._tokens, context)
        if prefix_length == len(context) == len(self._tokens) and self._last_row is not None:
            return
        prefix_length = min(prefix_length, len(context) - 1)
        self._session.rewind(prefix_length)
        self._tokens, self._last_row = context[:prefix_length], None
        self._last_row = self.engine.forward(self._session, context[prefix_length:], logits="last")[
            0
        ]
        self._tokens = list(context)

    def _read(self, tokens: list[int]) -> NDArray[np.float32]:
        """The logits after each of `tokens`; the session holds the context again afterwards."""
        if not tokens:
            return np.zeros((0, self.engine.vocab_size), np.float32)
        rows = self.engine.forward(self._session, tokens, logits="all")
        self._session.rewind(len(self._tokens))
        return rows

    def close(self) -> None:
        """Release the memory of the session."""
        self._session.close()

    def __enter__(self) -> LikelihoodScorer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
