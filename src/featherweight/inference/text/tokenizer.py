"""A model folder's tokenizer and chat template, without transformers: from text to token ids and
back.

The `tokenizers` library reads tokenizer.json, whose own post-processor adds a BOS where the model
needs one, and `added_tokens.py` adds the tokens that other files name. For some values of
`tokenizer_class` transformers builds another splitting rule than that of tokenizer.json. So the
folders that this package writes hold a probe (`probe.py`): texts and the ids that transformers
gives them. `open` refuses a folder whose files do not give these ids.

The chat template (chat_template.jinja, or the one inside tokenizer_config.json) is a program that
came with the model. It runs in jinja2's sandbox, with the settings, filters and functions that
templates are written for. For a model without a template, a conversation is the plain text of its
turns, one on each line.

`decode` leaves special tokens out and changes nothing else: spaces around punctuation stay, also
where `clean_up_tokenization_spaces` would remove them, because a stream takes nothing back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.errors import BadInput, UsageError
from .added_tokens import ADDED, SETTINGS, SPECIAL_MAP, SPECIAL_TOKEN_KEYS, TokenFiles, add_tokens
from .probe import check_probe
from .token_bytes import TokenBytes

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

Message = Mapping[str, Any]

TOKENIZER, TEMPLATE = "tokenizer.json", "chat_template.jinja"
# The tokens that end a turn in the common chat formats. Some models name only their end of text in
# the configuration.
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

    end_ids: frozenset[int]  # generation stops when one of these tokens is chosen
    vocab_size: int  # ids of the tokenizer; a model's logits may have more
    # Sixteen hexadecimal digits of the chat template's hash; None without a template.
    template_digest: str | None = None

    def __init__(
        self,
        tokenizer_json: str,
        settings: Mapping[str, Any],
        end_ids: Iterable[int],
        template: Template | None,
        special_map: Mapping[str, Any] | None = None,
        added: Mapping[str, Any] | None = None,
    ) -> None:
        """Args: the contents of tokenizer.json and tokenizer_config.json; end_ids, in addition to
        eos_token and common turn ends; template, the compiled chat template; the contents of
        special_tokens_map.json and added_tokens.json, which older folders have.

        Raises BadInput for files that cannot be read.
        """
        self._tokenizer = _parse(tokenizer_json)
        files = TokenFiles(settings, special_map or {}, added or {})
        self._special_tokens, self._template = add_tokens(self._tokenizer, files), template
        self._tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens"))
        ends = {
            self._tokenizer.token_to_id(token)
            for token in (*TURN_ENDS, self._special_tokens.get("eos_token", ""))
        }
        self.end_ids = frozenset(end_ids) | {end for end in ends if end is not None}
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self._token_bytes = TokenBytes(self._tokenizer)

    @classmethod
    def open(cls, folder: Path | str) -> ChatTokenizer:
        """The tokenizer of a model folder.

        Raises BadInput for files that are missing or broken, and when they do not give the ids of
        the folder's probe.
        """
        tokenizer = cls.read(folder)
        check_probe(Path(folder), tokenizer)
        return tokenizer

    @classmethod
    def read(cls, folder: Path | str) -> ChatTokenizer:
        """As `open`, without the probe.

        Raises BadInput for files that are missing or broken.
        """
        folder = Path(folder)
        path = folder / TOKENIZER
        if not path.is_file():
            raise BadInput(
                f"{folder} has no {TOKENIZER}; write one with transformers: "
                f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
            )
        settings = _read_json(folder / SETTINGS)
        end_ids: set[int] = set()
        for file in ("config.json", "generation_config.json"):
            end_ids |= _end_ids(_read_json(folder / file).get("eos_token_id"), folder / file)
        source = _template_source(folder, settings)
        try:
            template = None if source is None else _compile(source, folder)
            tokenizer = cls(
                _read(path),
                settings,
                end_ids,
                template,
                _read_json(folder / SPECIAL_MAP),
                _read_json(folder / ADDED),
            )
        except BadInput as error:
            raise BadInput(f"{folder}: {error}") from error
        tokenizer.template_digest = _digest(source)
        return tokenizer

    @classmethod
    def of(cls, tokenizer: Any) -> ChatTokenizer:
        """The same from a fast transformers tokenizer in memory; its end tokens are the eos_token
        and the common turn ends.
        """
        settings: dict[str, Any] = {
            key: str(getattr(tokenizer, key))
            for key in SPECIAL_TOKEN_KEYS
            if getattr(tokenizer, key, None)
        }
        settings["split_special_tokens"] = getattr(tokenizer, "split_special_tokens", False)
        source = getattr(tokenizer, "chat_template", None)
        if isinstance(source, dict):
            source = source.get("default")
        template = None if source is None else _compile(source, "the tokenizer")
        chat_tokenizer = cls(tokenizer.backend_tokenizer.to_str(), settings, (), template)
        chat_tokenizer.template_digest = _digest(source)
        return chat_tokenizer

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer as a tokenizer.json with all tokens, for libraries that constrain
        generation.
        """
        return str(self._tokenizer.to_str())

    @property
    def added_tokens(self) -> list[str]:
        """The tokens that are found in a text before it is cut, in the order of their ids."""
        return [token.content for token in self._tokenizer.get_added_tokens_decoder().values()]

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template of its own."""
        return self._template is not None

    def special_token(self, key: str) -> tuple[str, int] | None:
        """The text and the id of a special token, by its key ("bos_token", "eos_token"); None when
        the model has none.
        """
        text = self._special_tokens.get(key)
        id = None if text is None else self._tokenizer.token_to_id(text)
        return None if text is None or id is None else (text, int(id))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, with the tokens that the model needs at its beginning (BOS).

        Raises UsageError for broken Unicode.
        """
        return self._encode(text, True)

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Token ids of a conversation, up to where the next answer begins.

        Args: messages, each {"role": ..., "content": text}; tools, the functions that the answer
        may call, as templates read them. Raises UsageError for other messages, and for those that
        the template refuses.
        """
        _check_messages(messages)
        if self._template is None:
            return self._encode("\n".join(str(message["content"]) for message in messages), True)
        return self._encode(self.render(messages, tools), False)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
    ) -> str:
        """The text that the chat template writes for a conversation.

        Args: messages and tools as in `chat`; add_generation_prompt, whether the beginning of the
        next answer is written. Raises UsageError when the model has no template, or it refuses the
        messages.
        """
        if self._template is None:
            raise UsageError("this model has no chat template; give it plain text")
        turns = [dict(message) for message in messages]
        try:
            return self._template.render(
                messages=turns,
                tools=[dict(tool) for tool in tools] or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except Exception as error:  # a template is a program: it can divide by zero, or recurse
            raise UsageError(
                f"the model's chat template refuses these messages: {error}"
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` without special tokens; bytes that are no UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def token_text(self, id: int) -> str:
        """The text of one token: the name of a special token, U+FFFD for a token that holds only
        part of a character.
        """
        return str(self._tokenizer.decode([id], skip_special_tokens=False))

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; those of all tokens of an answer, joined, are its text."""
        return self._token_bytes(id)

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of `text` without the tokens that the model needs at its beginning."""
        return self._encode(text, False)

    def split_at_added_tokens(self, text: str) -> list[tuple[str, int | None]]:
        """The pieces of `text`: those that are one added token (a special one, for example) with
        its id, all others with None.
        """
        added_ids = {
            token.content: id for id, token in self._tokenizer.get_added_tokens_decoder().items()
        }
        if not added_ids:
            return [(text, None)]
        longest_first = sorted(added_ids, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        return [(piece, added_ids.get(piece)) for piece in pieces if piece]

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the text is not valid Unicode: {error.reason} at character {error.start}"
            ) from error
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)
        except Exception as error:  # the library raises bare Exceptions
            raise BadInput(f"{TOKENIZER} cannot encode this text: {error}") from error


def _parse(tokenizer_json: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises bare Exceptions
        raise BadInput(f"{TOKENIZER} cannot be read: {error}; fetch it again") from error
    # Some models left settings for training batches in the file.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _check_messages(messages: Sequence[Message]) -> None:
    if not messages:
        raise UsageError("the conversation is empty; give at least one message")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise UsageError(
                f'message {number} should look like {{"role": "user", "content": "..."}}'
            )
        if not isinstance(message.get("content"), str):
            raise UsageError(f"message {number} ({message['role']}): its content should be text")


def _digest(source: str | None) -> str | None:
    return None if source is None else hashlib.sha256(source.encode()).hexdigest()[:16]


def _template_source(folder: Path, settings: dict[str, Any]) -> str | None:
    if (folder / TEMPLATE).is_file():
        return _read(folder / TEMPLATE)
    source = settings.get("chat_template")
    if isinstance(source, list):  # several templates, each with its name
        by_name = {
            entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)
        }
        source = by_name.get("default")
    if source is not None and not isinstance(source, str):
        raise BadInput(f"{folder / SETTINGS}: chat_template is not text")
    return source


def _compile(source: str, folder: Path | str) -> Template:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationTag(Extension):
        """{% generation %} marks the answers, for training; here it changes nothing."""

        tags = {"generation"}  # noqa: RUF012 - jinja2's own protocol

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **layout)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except Exception as error:  # jinja2 writes Python, whose own errors escape from it
        raise BadInput(f"the chat template of {folder} cannot be read: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one when the file is missing."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} should hold a JSON object")
    return content


def _end_ids(value: object, path: Path) -> set[int]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(id, int) and not isinstance(id, bool) for id in ids):
        raise BadInput(f"{path}: eos_token_id should be a token id, or a list of them")
    return set(ids)
