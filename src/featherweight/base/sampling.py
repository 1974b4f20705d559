"""The parameters that determine how the next token is chosen and where an answer ends.

`ops.sampling` has the code that chooses tokens. The shell, the web service and the generation loop
create these parameters and pass them on.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from .errors import UsageError

MAX_STOPS, MAX_STOP_LENGTH, MAX_LOGPROBS = 16, 500, 20
# Below this temperature sampling is greedy, because after the division all probability is at the
# largest logit within the precision of float32.
GREEDY_BELOW = 1e-4


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens and when to stop.

    max_tokens: the longest answer, in tokens. temperature: 0 always takes the most likely token.
    top_k: sample among this many of the most likely tokens (0: all). top_p: sample among the fewest
    most likely tokens whose probabilities sum to at least this. min_p: keep tokens with at least
    this share of the largest probability. repetition_penalty: above 1 makes tokens that occurred
    less likely. seed: None gives another text each time. stop: the text ends before the first of
    these strings. logprobs: None reports no log-probabilities; n reports that of the chosen token
    and those of the n most likely tokens.

    Raises UsageError, which names the field, for values that cannot work.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        _check_integer("max_tokens", self.max_tokens, 1, 1_000_000)
        _check_number("temperature", self.temperature, 0, 10)
        _check_integer("top_k", self.top_k, 0, 1_000_000)
        _check_number("top_p", self.top_p, 0, 1, exclude_low=True)
        _check_number("min_p", self.min_p, 0, 1)
        _check_number("repetition_penalty", self.repetition_penalty, 0, 10, exclude_low=True)
        if self.seed is not None:
            _check_integer("seed", self.seed, -(2**63), 2**64 - 1)
        if self.logprobs is not None:
            _check_integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) for text in self.stop):
            raise UsageError("stop should be a tuple of texts")
        if len(self.stop) > MAX_STOPS:
            raise UsageError(f"stop has {len(self.stop)} texts; at most {MAX_STOPS}")
        for text in self.stop:
            if not 1 <= len(text) <= MAX_STOP_LENGTH:
                raise UsageError(f"a stop text has {len(text)} characters; 1 to {MAX_STOP_LENGTH}")

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken, so that nothing is drawn."""
        return self.temperature < GREEDY_BELOW


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:  # type: ignore[operator]
        raise UsageError(f"{name}={value!r}: a whole number from {low} to {high}")


def _check_number(
    name: str, value: object, low: float, high: float, exclude_low: bool = False
) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # A NaN fails every comparison.
        if (low < value if exclude_low else low <= value) and value <= high:
            return
    lower_bound = "above" if exclude_low else "from"
    raise UsageError(f"{name}={value!r}: a number {lower_bound} {low} to {high}")
