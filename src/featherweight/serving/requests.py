"""What clients may ask: OpenAI's parameters with their types and bounds, and nothing beyond.

A parameter that this server does not implement is refused, never ignored, unless its value asks for
what happens anyway (`n: 1`, `presence_penalty: 0`, null). Beyond OpenAI's: `top_k`, `min_p`,
`repetition_penalty`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import ApiError

MAX_STOPS, MAX_STOP_LENGTH = 4, 500
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# OpenAI's parameters without an implementation here, with the values that change nothing.
UNIMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "metadata": ({},),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (),
    "reasoning_effort": (),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none",),
    "tools": ([],),
    "user": (),
    "verbosity": (),
    "web_search_options": (),
}
Request = TypeVar("Request", bound="Generation")


class Strict(BaseModel):
    """No conversions ("1" is no number, true no integer), no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Message(Strict):
    """A turn of a conversation."""

    role: Annotated[str, BeforeValidator(lambda value: _role(value))]
    content: Annotated[str, BeforeValidator(lambda value: _content(value))]


class StreamOptions(Strict):
    """What a stream brings beside the text."""

    include_usage: bool = False


class Schema(Strict):
    """OpenAI's wrapping of a JSON schema; only the schema itself changes anything, and it is always
    followed.
    """

    name: Annotated[str, Field(max_length=64)]
    wanted: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Strict):
    """Free text, any JSON object, or JSON after a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    @model_validator(mode="after")
    def _together(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema, and only with it")
        return self

    def schema_wanted(self) -> dict[str, Any] | None:
        """The schema that the answer follows; None for free text."""
        if self.json_schema is not None:
            return self.json_schema.wanted
        return {"type": "object"} if self.type == "json_object" else None


def _role(value: Any) -> Any:
    if isinstance(value, str) and value not in ROLES:
        raise ValueError(f"should be one of {', '.join(ROLES)}")
    return ROLES[value] if isinstance(value, str) else value


def _content(value: Any) -> Any:
    """Text, or OpenAI's list of parts when all of them are text."""
    if not isinstance(value, list):
        return value
    texts = []
    for part in value:
        if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] != "text":
            raise ValueError(
                'parts should look like {"type": "text", "text": "..."}; this model reads nothing else'
            )
        if not isinstance(part["text"], str):
            raise ValueError("a part's text should be a string")
        texts.append(part["text"])
    return "\n".join(texts)


def _stop(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("should be a string or a list of strings")
    if len(texts) > MAX_STOPS:
        raise ValueError(f"has {len(texts)} strings; at most {MAX_STOPS}")
    if not all(1 <= len(text) <= MAX_STOP_LENGTH for text in texts):
        raise ValueError(f"its strings should have 1 to {MAX_STOP_LENGTH} characters")
    return tuple(texts)


def _prompt(value: Any) -> Any:
    # Some clients always send a list of prompts; with one in it, that is no different.
    only = (
        value[0]
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list)
        else value
    )
    if isinstance(only, str):
        return only
    if isinstance(only, list) and all(type(token) is int for token in only):
        return tuple(only)
    raise ValueError("should be one string or one list of token ids")


class Generation(Strict):
    """What both kinds of request share; temperature 1 and top_p 1 are OpenAI's defaults."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_stop)] = ()
    stream: bool = False
    stream_options: StreamOptions | None = None


class ChatRequest(Generation):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None


class CompletionRequest(Generation):
    """POST /v1/completions; the prompt is text or token ids."""

    prompt: Annotated[str | tuple[int, ...], BeforeValidator(_prompt)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


def read(kind: type[Request], asked: dict[str, Any]) -> Request:
    """The request in a JSON object. Raises ApiError 400 that names the parameter."""
    # OpenAI takes null for "not given".
    given = {name: value for name, value in asked.items() if value is not None}
    for name, harmless in UNIMPLEMENTED.items():
        if name in given and name not in kind.model_fields:
            value = given.pop(name)
            if not any(
                value == same and isinstance(value, bool) == isinstance(same, bool)
                for same in harmless
            ):
                raise ApiError(
                    400,
                    f"{name} is not implemented by this server",
                    param=name,
                    code="unsupported_parameter",
                )
    try:
        request = kind.model_validate(given)
    except ValidationError as error:
        raise _explained(error) from None
    if request.stream_options is not None and not request.stream:
        raise ApiError(
            400,
            "stream_options is for stream: true only",
            param="stream_options",
            code="invalid_value",
        )
    if isinstance(request, ChatRequest):
        if request.top_logprobs is not None and not request.logprobs:
            raise ApiError(
                400,
                "top_logprobs is for logprobs: true only",
                param="top_logprobs",
                code="invalid_value",
            )
        if None not in (request.max_tokens, request.max_completion_tokens):
            raise ApiError(
                400,
                "give max_tokens or max_completion_tokens, not both",
                param="max_tokens",
                code="invalid_value",
            )
    return request


def _explained(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = ".".join(str(part)[:100] for part in first["loc"]) or None
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown parameter: {param}", param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return ApiError(400, f"{param} is missing", param=param, code="missing_required_parameter")
    message = first["msg"].removeprefix("Value error, ")
    code = "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    return ApiError(400, f"{param}: {message}", param=param, code=code)
