"""The functions that a client offers to the model, and whether it must call one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationError

from ..inference.text.tool_calls import Function
from .fields import StrictModel, invalid_value

MAX_TOOLS = 128
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


class FunctionDefinition(StrictModel):
    """A function: its name, what it is for, and the JSON schema of its arguments. Arguments always
    follow the schema, so `strict` changes nothing.
    """

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=lambda: dict(NO_PARAMETERS))
    strict: bool | None = None


class Tool(StrictModel):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: FunctionDefinition

    def for_template(self) -> dict[str, Any]:
        """The tool as chat templates read it."""
        function: dict[str, Any] = {"name": self.function.name}
        if self.function.description is not None:
            function["description"] = self.function.description
        return {"type": "function", "function": function | {"parameters": self.function.parameters}}


class FunctionName(StrictModel):
    """The name in a `tool_choice`."""

    name: str


class NamedTool(StrictModel):
    """The one tool that must be called."""

    type: Literal["function"]
    function: FunctionName


def _tool_choice(value: Any) -> Any:
    if value in ("none", "auto", "required"):
        return value
    try:
        return NamedTool.model_validate(value)
    except ValidationError:
        raise ValueError(
            'should be "none", "auto", "required" or '
            '{"type": "function", "function": {"name": "..."}}'
        ) from None


ToolChoice = Annotated[str | NamedTool, PlainValidator(_tool_choice)]


class ToolUse:
    """What the model may call in one answer.

    functions: those that it may call; is_required: whether it must call one; is_parallel: whether
    it may call several.
    """

    def __init__(
        self, tools: list[Tool], choice: ToolChoice | None, is_parallel: bool | None
    ) -> None:
        """Raises ApiError 400 for tools and a choice that do not fit together."""
        names = [tool.function.name for tool in tools]
        if len(set(names)) < len(names):
            raise invalid_value("tools", "tools: two functions have the same name")
        if isinstance(choice, NamedTool) and choice.function.name not in names:
            raise invalid_value(
                "tool_choice", f"tool_choice: tools has no function {choice.function.name[:100]!r}"
            )
        if choice == "required" and not tools:
            raise invalid_value("tool_choice", "tool_choice: there are no tools to call")
        # A model that may not call is not shown the tools.
        self.tools = [] if choice == "none" else tools
        self.functions = [
            Function(tool.function.name, tool.function.parameters)
            for tool in self.tools
            if not isinstance(choice, NamedTool) or tool.function.name == choice.function.name
        ]
        self.is_required = choice == "required" or isinstance(choice, NamedTool)
        self.is_parallel = is_parallel is not False and not isinstance(choice, NamedTool)
