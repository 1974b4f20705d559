"""What all requests share: strict fields, null, and values that change nothing.

A field whose value is null counts as not given, at any depth, and a schema inside a request stays
as it is. A parameter that this server does not implement is accepted when its value asks for what
happens anyway (`presence_penalty: 0`, `store: false`) or only describes the request to others
(`user`, `metadata`). Every other value of it is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from .errors import ApiError

Accepts = Callable[[Any], bool]
Request = TypeVar("Request", bound="StrictModel")


class StrictModel(BaseModel):
    """Nothing is converted ("1" is no number, true no integer), and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _remove_null(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: field for name, field in value.items() if field is not None}


def only(*values: Any) -> Accepts:
    """Accept these values; true is no 1 and false no 0."""
    return lambda value: any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
        for neutral in values
    )


def is_text(value: Any) -> bool:
    """Accept text of any kind: a label for the server's operator."""
    return isinstance(value, str)


def is_flag(value: Any) -> bool:
    """Accept true and false."""
    return isinstance(value, bool)


def is_labels(value: Any) -> bool:
    """Accept an object of texts: labels for the server's operator."""
    return isinstance(value, dict) and all(isinstance(label, str) for label in value.values())


def is_empty_bias(value: Any) -> bool:
    """Accept an object that adds nothing to any token."""
    return isinstance(value, dict) and all(only(0)(bias) for bias in value.values())


# Parameters without an implementation, of OpenAI's protocol and of other servers that speak it.
NEUTRAL_VALUES: dict[str, Accepts] = {
    "add_generation_prompt": only(True),
    "add_special_tokens": only(True),
    "audio": only(),
    "background": only(False),
    "continue_final_message": only(False),
    "conversation": only(),
    "frequency_penalty": only(0),
    "function_call": only("none", "auto"),
    "functions": only([]),
    "ignore_eos": only(False),
    "include": only([]),
    "include_stop_str_in_output": only(False),
    "length_penalty": only(1),
    "logit_bias": is_empty_bias,
    "max_tool_calls": lambda value: only()(value) or type(value) is int,
    "metadata": is_labels,
    "min_tokens": only(0),
    "modalities": only(["text"]),
    "parallel_tool_calls": is_flag,
    "prediction": only(),
    "presence_penalty": only(0),
    "previous_response_id": only(),
    "prompt": only(),
    "prompt_cache_key": is_text,
    "prompt_cache_retention": is_text,
    "reasoning": only({}, {"effort": None}, {"effort": "none"}),
    "reasoning_effort": only("none"),
    "safety_identifier": is_text,
    "service_tier": only("auto", "default"),
    "skip_special_tokens": only(True),
    "stop_token_ids": only([]),
    "store": only(False),
    "suffix": only(""),
    "tool_choice": only("none", "auto"),
    "tools": only([]),
    "truncation": only("disabled"),
    "use_beam_search": only(False),
    "user": is_text,
    "verbosity": only("medium"),
    "web_search_options": only(),
}


def read(kind: type[Request], body: Mapping[str, Any]) -> Request:
    """The request of class `kind` in a JSON object. Raises ApiError 400, naming the parameter."""
    parameters = {name: value for name, value in body.items() if value is not None}
    for name, accepts in NEUTRAL_VALUES.items():
        if (
            name in parameters
            and name not in kind.model_fields
            and not accepts(parameters.pop(name))
        ):
            message = f"{name} is not implemented by this server"
            raise ApiError(400, message, param=name, code="unsupported_parameter")
    try:
        return kind.model_validate(parameters)
    except ValidationError as error:
        raise _to_api_error(error) from None


def invalid_value(param: str, message: str) -> ApiError:
    """The 400 for a value, or a combination of values, that cannot work."""
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
