"""Text in, token ids out, and back: a model folder's tokenizer and chat template, without
transformers.

The `tokenizers` library reads tokenizer.json, whose own post-processor adds a BOS where the model
wants one, so ids are those of `AutoTokenizer`. The chat template (chat_template.jinja, or the one
inside tokenizer_config.json) is a program that came with the model: it runs in jinja2's sandbox,
with the settings, filters and functions that templates are written for. A model without a template
gets the plain text of the turns, one a line.

`decode` leaves special tokens out and changes nothing else (no clean-up of spaces around
punctuation).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.errors import BadInput, UsageError

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

Message = Mapping[str, Any]

TOKENIZER, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# What ends a turn in the common chat formats; some models list only their end of text in the
# configuration.
TURN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|endofturn|>",
)


class ChatTokenizer:
    """One model's tokenizer, chat template and end tokens; made by `ChatTokenizer.open`."""

    end_ids: frozenset[int]  # generation stops when one of them is chosen
    vocab_size: int  # ids that the tokenizer knows; a model's logits may have more
    tokenizer_json: str  # the whole file, for libraries that constrain generation

    def __init__(
        self,
        tokenizer_json: str,
        names: Mapping[str, str],
        end_ids: Iterable[int],
        template: Template | None,
    ) -> None:
        """`names`: the named special tokens (bos_token, ...), which templates may write."""
        self.tokenizer_json = tokenizer_json
        self._tokenizer = _parse(tokenizer_json, names)
        self._names, self._template = dict(names), template
        ends = {
            self._tokenizer.token_to_id(token) for token in (*TURN_ENDS, names.get("eos_token", ""))
        }
        self.end_ids = frozenset(end_ids) | {end for end in ends if end is not None}
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)

    @classmethod
    def open(cls, folder: Path | str) -> ChatTokenizer:
        """Read the tokenizer of a model folder.

        Raises BadInput for files that are missing or broken.
        """
        folder = Path(folder)
        path = folder / TOKENIZER
        if not path.is_file():
            raise BadInput(
                f"{folder} has no {TOKENIZER}; write one with transformers: "
                f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
            )
        settings = _json(folder / SETTINGS)
        names = {name: _content(settings[name]) for name in NAMED if settings.get(name)}
        ends: set[int] = set()
        for file in ("config.json", "generation_config.json"):
            ends |= _ids(_json(folder / file).get("eos_token_id"), folder / file)
        template = _template_source(folder, settings)
        try:
            return cls(
                _read(path), names, ends, None if template is None else _compile(template, folder)
            )
        except BadInput as error:
            raise BadInput(f"{folder}: {error}") from error

    @classmethod
    def of(cls, tokenizer: Any) -> ChatTokenizer:
        """The same from a fast transformers tokenizer in memory; end tokens are its eos_token and
        known turn ends.
        """
        names = {
            name: str(getattr(tokenizer, name)) for name in NAMED if getattr(tokenizer, name, None)
        }
        template = getattr(tokenizer, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        compiled = None if template is None else _compile(template, "the tokenizer")
        return cls(tokenizer.backend_tokenizer.to_str(), names, (), compiled)

    @property
    def has_template(self) -> bool:
        """Whether conversations are written through the model's own chat template."""
        return self._template is not None

    def encode(self, text: str) -> list[int]:
        """Token ids, with what the model wants before a text (BOS) added.

        Raises UsageError for broken Unicode.
        """
        return self._encode(text, True)

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ending where the next answer begins.

        Raises UsageError for turns that are not {"role": ..., "content": ...} or that the template
        refuses.
        """
        _check(messages)
        if self._template is None:
            return self._encode("\n".join(str(message["content"]) for message in messages), True)
        return self._encode(self.render(messages), False)

    def render(self, messages: Sequence[Message]) -> str:
        """The text that the chat template writes.

        Raises UsageError when the model has none, or it refuses.
        """
        from jinja2 import TemplateError

        if self._template is None:
            raise UsageError("this model has no chat template; give it plain text")
        turns = [dict(message) for message in messages]
        try:
            return self._template.render(
                messages=turns,
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._names,
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise UsageError(
                f"the model's chat template refuses these messages: {error}"
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out; bytes that are no UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def token_text(self, id: int) -> str:
        """The text of one token, special ones by their name; U+FFFD where it holds part of a
        character only.
        """
        return str(self._tokenizer.decode([id], skip_special_tokens=False))

    def _encode(self, text: str, special: bool) -> list[int]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the text is not valid Unicode: {error.reason} at character {error.start}"
            ) from error
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)


def _parse(tokenizer_json: str, names: Mapping[str, str]) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer

    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises bare Exceptions
        raise BadInput(f"{TOKENIZER} cannot be read: {error}; fetch it again") from error
    # Settings for batches in training, which some models left in the file.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown = [
        token for token in dict.fromkeys(names.values()) if tokenizer.token_to_id(token) is None
    ]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in unknown]
    )
    return tokenizer


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise UsageError("the conversation is empty; give at least one message")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise UsageError(
                f'message {number} should look like {{"role": "user", "content": "..."}}'
            )
        if not isinstance(message.get("content"), str):
            raise UsageError(f"message {number} ({message['role']}): its content should be text")


def _template_source(folder: Path, settings: dict[str, Any]) -> str | None:
    if (folder / TEMPLATE).is_file():
        return _read(folder / TEMPLATE)
    found = settings.get("chat_template")
    if isinstance(found, list):  # several, each with its name
        by_name = {
            entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)
        }
        found = by_name.get("default")
    if found is not None and not isinstance(found, str):
        raise BadInput(f"{folder / SETTINGS}: chat_template is not text")
    return found


def _compile(source: str, folder: Path | str) -> Template:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} marks what the assistant said, for training; here it is the text inside."""

        tags = {"generation"}  # noqa: RUF012 - jinja2's own protocol

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **layout)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise BadInput(f"the chat template of {folder} cannot be read: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    """What a JSON file holds, nothing when it is missing."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} should hold names and values")
    return found


def _content(token: object) -> str:
    """A named token: its text, or the dict that older files hold."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _ids(value: object, path: Path) -> set[int]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(id, int) and not isinstance(id, bool) for id in listed):
        raise BadInput(f"{path}: eos_token_id should be a token id, or a list of them")
    return set(listed)
