"""The tokens and the text of one answer, from one row of logits after the other.

`AnswerBuilder` chooses a token from each row, turns the tokens into text, and decides where the
answer ends. The generation loop uses one, and each request of the batcher uses one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..base.sampling import Sampling
from ..ops.sampling import Choice, Sampler
from .text.streaming import TextStream
from .text.tokenizer import ChatTokenizer

# "stop": an end token or a stop string; "length": the answer has max_tokens.
Finish = Literal["stop", "length"]
# (tokens of the answer so far, logits (vocab,)) -> the tokens that may come next (vocab,)
Mask = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one token adds to an answer.

    text: the new characters; "" while a character or a possible stop string is incomplete. tokens
    and choices: the token, and the choice with its log-probabilities. finish: why the answer ends
    with this token, None while it goes on. prompt: with the first delta, when the prompt is scored,
    its tokens with their log-probabilities; the first token has none.
    """

    text: str
    tokens: tuple[int, ...]
    choices: tuple[Choice, ...]
    finish: Finish | None = None
    prompt: tuple[Choice, ...] = ()


class AnswerBuilder:
    """Builds one answer.

    Args: tokenizer, of the model; prompt_ids, which the repetition penalty counts; sampling, how to
    choose and where to stop; mask, the tokens that may come next (None: all).
    """

    tokens: list[int]  # chosen so far, the end token included

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        mask: Mask | None = None,
    ) -> None:
        self.tokens = []
        self._end_ids, self._max_tokens, self._mask = tokenizer.end_ids, sampling.max_tokens, mask
        self._sampler = Sampler(sampling, prompt_ids)
        self._stream = TextStream(tokenizer, sampling.stop)

    def add(self, logits: NDArray[np.float32]) -> TextDelta:
        """Choose the next token from `logits` (vocab,), and return what it adds.

        Raises BadInput for logits that are not finite, or a mask that allows no token.
        """
        allowed_tokens = None
        if self._mask is not None:
            allowed_tokens = self._mask(np.array(self.tokens, np.int64), logits)
        choice = self._sampler.choose(logits, allowed_tokens)
        self.tokens.append(choice.token)
        finish: Finish | None = None
        if choice.token in self._end_ids:
            finish, text = "stop", self._stream.finish()
        else:
            text = self._stream.push(choice.token)
            if not self._stream.is_stopped and len(self.tokens) >= self._max_tokens:
                finish, text = "length", text + self._stream.finish()
            if self._stream.is_stopped:
                finish = "stop"
        return TextDelta(text, (choice.token,), (choice,), finish)
