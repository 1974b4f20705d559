"""The requests for chat completions and completions: OpenAI's parameters with types and bounds.

`top_k`, `min_p` and `repetition_penalty` are ours. What is not here and changes nothing is accepted
by `fields.read`; everything else is refused, never ignored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .fields import StrictModel, invalid_value
from .messages import Message
from .tools import MAX_TOOLS, Tool, ToolChoice

MAX_STOPS, MAX_STOP_LENGTH, MAX_CHOICES, MAX_PROMPTS = 4, 500, 128, 1000
MAX_TOKENS = 1_000_000
Prompt = str | tuple[int, ...]


class StreamOptions(StrictModel):
    """What a stream brings besides the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Schema(StrictModel):
    """OpenAI's object around a JSON schema. Only the schema itself matters, and every answer
    follows it.
    """

    name: Annotated[str, Field(max_length=64)]
    definition: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(StrictModel):
    """Free text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema, and only with it")
        return self

    def schema_to_follow(self) -> dict[str, Any] | None:
        """The schema of the answer; None for free text."""
        if self.json_schema is not None:
            return self.json_schema.definition
        return {"type": "object"} if self.type == "json_object" else None


def _stop(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("should be a string or a list of strings")
    if len(texts) > MAX_STOPS:
        raise ValueError(f"has {len(texts)} strings; at most {MAX_STOPS}")
    if not all(1 <= len(text) <= MAX_STOP_LENGTH for text in texts):
        raise ValueError(f"its strings should have 1 to {MAX_STOP_LENGTH} characters")
    return tuple(texts)


def _prompts(value: Any) -> Any:
    """One prompt or a list of them, each as text or as token ids, as a tuple of prompts."""
    is_list = isinstance(value, list) and value and isinstance(value[0], str | list)
    prompts = tuple(map(_prompt, value if is_list else [value]))
    if len(prompts) > MAX_PROMPTS:
        raise ValueError(f"has {len(prompts)} prompts; at most {MAX_PROMPTS}")
    return prompts


def _prompt(value: Any) -> Prompt:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(type(token) is int for token in value):
        return tuple(value)
    raise ValueError("should be a string, a list of token ids, or a list of such prompts")


class BaseRequest(StrictModel, ABC):
    """What all kinds of request have; temperature 1 and top_p 1 are OpenAI's defaults."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_stop)] = ()
    stream: bool = False
    stream_options: StreamOptions | None = None

    def check(self) -> None:
        """Raise ApiError 400 for parameters that do not go together."""
        if (
            self.stream_options is not None
            and self.stream_options.include_usage
            and not self.stream
        ):
            raise invalid_value("stream_options", "include_usage is for stream: true only")

    @property
    @abstractmethod
    def length_limit(self) -> tuple[str, int | None]:
        """The parameter that limits the answer, and the number of tokens in it."""

    @property
    def count_param(self) -> str:
        """The parameter that decides how many answers are made."""
        return "n"

    @property
    def logprobs_limit(self) -> int | None:
        """The most likely tokens to report for each token; None reports no log-probabilities."""
        return None


class ChatRequest(BaseRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    def check(self) -> None:
        """Raise ApiError 400 for parameters that do not go together."""
        super().check()
        if self.top_logprobs and not self.logprobs:
            raise invalid_value("top_logprobs", "top_logprobs is for logprobs: true only")
        if self.max_tokens not in (None, self.max_completion_tokens) and (
            self.max_completion_tokens is not None
        ):
            raise invalid_value("max_tokens", "max_tokens and max_completion_tokens differ")

    @property
    def length_limit(self) -> tuple[str, int | None]:
        """The parameter that limits the answer, and the number of tokens in it."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens

    @property
    def logprobs_limit(self) -> int | None:
        """The most likely tokens to report for each token; None reports no log-probabilities."""
        return self.top_logprobs if self.logprobs else None


class CompletionRequest(BaseRequest):
    """POST /v1/completions; prompts are text or token ids."""

    prompt: Annotated[tuple[Prompt, ...], BeforeValidator(_prompts)]
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    echo: bool = False
    logprobs: Annotated[
        Annotated[int, Field(ge=0, le=5)] | None,
        BeforeValidator(lambda value: None if value is False else value),
    ] = None

    def check(self) -> None:
        """Raise ApiError 400 for parameters that do not go together."""
        super().check()
        if self.max_tokens == 0 and not self.echo:
            raise invalid_value("max_tokens", "max_tokens: 0 is for echo: true only")
        if self.best_of is not None and self.best_of < self.n:
            raise invalid_value("best_of", f"best_of is less than n={self.n}")
        if self.stream and self.num_tries > self.n:
            raise invalid_value("best_of", "best_of above n cannot be streamed")

    @property
    def count_param(self) -> str:
        """The parameter that decides how many answers are made."""
        return "prompt" if len(self.prompt) > 1 else "n" if self.best_of is None else "best_of"

    @property
    def num_tries(self) -> int:
        """Answers to make for each prompt, the `n` best of which are returned."""
        return self.n if self.best_of is None else self.best_of

    @property
    def length_limit(self) -> tuple[str, int | None]:
        """The parameter that limits the answer, and the number of tokens in it."""
        return "max_tokens", self.max_tokens

    @property
    def logprobs_limit(self) -> int | None:
        """The most likely tokens to report for each token; None reports no log-probabilities."""
        return self.logprobs
