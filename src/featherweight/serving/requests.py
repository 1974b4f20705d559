"""The requests that clients may send: OpenAI's parameters with their types and bounds.

A parameter that this server does not implement is refused, not ignored, unless its value asks for
what happens anyway (`n: 1`, `presence_penalty: 0`, null). `top_k`, `min_p` and `repetition_penalty`
are ours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import ApiError

MAX_STOPS, MAX_STOP_LENGTH = 4, 500
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# OpenAI's parameters without an implementation here, and their values that change nothing.
NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
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
Request = TypeVar("Request", bound="BaseRequest")


class StrictModel(BaseModel):
    """Nothing is converted ("1" is no number, true no integer), and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Message(StrictModel):
    """A turn of a conversation."""

    role: Annotated[str, BeforeValidator(lambda value: _role(value))]
    content: Annotated[str, BeforeValidator(lambda value: _content(value))]


class StreamOptions(StrictModel):
    """What a stream brings besides the text."""

    include_usage: bool = False


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


def _role(value: Any) -> Any:
    if isinstance(value, str) and value not in ROLES:
        raise ValueError(f"should be one of {', '.join(ROLES)}")
    return ROLES[value] if isinstance(value, str) else value


def _content(value: Any) -> Any:
    """The text itself, or that of OpenAI's list of content parts when all of them are text."""
    if not isinstance(value, list):
        return value
    texts = []
    for part in value:
        if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] != "text":
            raise ValueError(
                'parts should look like {"type": "text", "text": "..."}; '
                "this model reads nothing else"
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
    # Some clients always send a list of prompts; a list of one prompt is that prompt.
    prompt = (
        value[0]
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list)
        else value
    )
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and all(type(token) is int for token in prompt):
        return tuple(prompt)
    raise ValueError("should be one string or one list of token ids")


class BaseRequest(StrictModel):
    """What both kinds of request have; temperature 1 and top_p 1 are OpenAI's defaults."""

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


class ChatRequest(BaseRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None


class CompletionRequest(BaseRequest):
    """POST /v1/completions; the prompt is text or token ids."""

    prompt: Annotated[str | tuple[int, ...], BeforeValidator(_prompt)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


def read(kind: type[Request], body: dict[str, Any]) -> Request:
    """The request of class `kind` in a JSON object. Raises ApiError 400, naming the parameter."""
    # OpenAI takes null for "not given".
    parameters = {name: value for name, value in body.items() if value is not None}
    for name, neutral_values in NEUTRAL_VALUES.items():
        if name in parameters and name not in kind.model_fields:
            value = parameters.pop(name)
            if not any(
                value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
                for neutral in neutral_values
            ):
                raise ApiError(
                    400,
                    f"{name} is not implemented by this server",
                    param=name,
                    code="unsupported_parameter",
                )
    try:
        request = kind.model_validate(parameters)
    except ValidationError as error:
        raise _to_api_error(error) from None
    _check_combinations(request)
    return request


def _check_combinations(request: BaseRequest) -> None:
    """Raise ApiError 400 for parameters that do not go together."""
    if request.stream_options is not None and not request.stream:
        raise _invalid_value("stream_options", "stream_options is for stream: true only")
    if isinstance(request, ChatRequest):
        if request.top_logprobs is not None and not request.logprobs:
            raise _invalid_value("top_logprobs", "top_logprobs is for logprobs: true only")
        if None not in (request.max_tokens, request.max_completion_tokens):
            raise _invalid_value("max_tokens", "give max_tokens or max_completion_tokens, not both")


def _invalid_value(param: str, message: str) -> ApiError:
    return ApiError(400, message, param=param, code="invalid_value")


def _to_api_error(error: ValidationError) -> ApiError:
    """The first problem that pydantic reports, in OpenAI's shape."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = ".".join(str(part)[:100] for part in problem["loc"]) or None
    if problem["type"] == "extra_forbidden":
        return ApiError(400, f"unknown parameter: {param}", param=param, code="unknown_parameter")
    if problem["type"] == "missing":
        return ApiError(400, f"{param} is missing", param=param, code="missing_required_parameter")
    message = problem["msg"].removeprefix("Value error, ")
    code = "invalid_type" if problem["type"].endswith("_type") else "invalid_value"
    return ApiError(400, f"{param}: {message}", param=param, code=code)
