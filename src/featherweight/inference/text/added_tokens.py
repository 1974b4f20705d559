"""The tokens that a model folder adds to those of its tokenizer.json, as transformers adds them.

Four files name tokens: tokenizer.json itself, tokenizer_config.json (`added_tokens_decoder`, the
named special tokens, `extra_special_tokens` or its older name `additional_special_tokens`, and
tokens of the model's own such as `image_token`), and in older folders special_tokens_map.json and
added_tokens.json, which count only where tokenizer_config.json has no `added_tokens_decoder`. A
token that is missed here would be cut into letters, and a new token's id depends on how many were
added before it. So this module repeats the order of transformers' `TokenizersBackend` step by step;
`tests/inference/text/test_added_tokens.py` compares both on random files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...base.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

# The keys that name a special token.
SPECIAL_TOKEN_KEYS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
SETTINGS, SPECIAL_MAP, ADDED = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
DECODER, EXTRA, OLD_EXTRA = (
    "added_tokens_decoder",
    "extra_special_tokens",
    "additional_special_tokens",
)
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
Settings = dict[str, Any]


@dataclass(frozen=True)
class TokenFiles:
    """The content of a folder's files that name tokens; an absent file is an empty dict."""

    settings: Mapping[str, Any]  # tokenizer_config.json
    special_map: Mapping[str, Any]  # special_tokens_map.json
    added: Mapping[str, Any]  # added_tokens.json


def add_tokens(tokenizer: Tokenizer, files: TokenFiles) -> dict[str, str]:
    """Add the tokens of `files` to `tokenizer`; returns the named special tokens by their key.

    Raises BadInput for values that are no tokens.
    """
    settings = dict(files.settings)
    if OLD_EXTRA in settings and not settings.get(EXTRA):
        settings[EXTRA] = settings.pop(OLD_EXTRA)
    model_tokens = _take_model_tokens(settings)
    if DECODER in settings:
        entries = _read_decoder(settings[DECODER])
    else:
        _merge_special_map(settings, files.special_map, model_tokens)
        entries = _read_added(files.added, settings)
        entries += tokenizer.get_added_tokens_decoder().items()
    by_id = dict(entries)
    # Of two tokens with one id the first is lost, but it still gives its flags to special tokens.
    by_text = {token.content: token for _, token in entries}
    if OLD_EXTRA in settings and EXTRA not in settings:
        settings[EXTRA] = settings.pop(OLD_EXTRA)
    named_tokens = _read_named_tokens(settings, model_tokens, by_text)
    new_tokens: list[AddedToken | str] = [by_id[id_] for id_ in sorted(by_id)]
    texts = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    texts |= {str(token) for token in new_tokens}
    extra_tokens = [_token(value, EXTRA) for value in _list(settings.get(EXTRA), EXTRA)]
    for token in (*named_tokens.values(), *extra_tokens):
        if str(token) not in texts and token not in new_tokens:
            new_tokens.append(token)
    special_tokens = {key: str(token) for key, token in named_tokens.items()}
    _add(tokenizer, new_tokens, set(special_tokens.values()))
    return special_tokens


def _read_named_tokens(
    settings: Settings, model_tokens: Settings, by_text: Mapping[str, AddedToken]
) -> Settings:
    """The named special tokens by key, in the order in which transformers adds them."""
    tokens: Settings = dict.fromkeys(SPECIAL_TOKEN_KEYS)
    for key in SPECIAL_TOKEN_KEYS:
        if settings.get(key) is not None:
            token = _token(settings[key], key)
            tokens[key] = by_text.get(str(token), token)
    for key, value in settings.items():
        if key.endswith("_token") and key not in SPECIAL_TOKEN_KEYS and _is_token(value):
            tokens[key] = _token(value, key)
    tokens |= {key: _token(value, key) for key, value in model_tokens.items()}
    return {key: token for key, token in tokens.items() if token is not None}


def _add(tokenizer: Tokenizer, tokens: list[AddedToken | str], named_texts: set[str]) -> None:
    from tokenizers import AddedToken

    complete_tokens = []
    for token in tokens:
        added_token = AddedToken(token, special=True) if isinstance(token, str) else token
        if str(token) in named_texts:
            added_token.special = True
        complete_tokens.append(added_token)
    tokenizer.add_tokens(complete_tokens)


def _is_token(value: object) -> bool:
    """Whether a setting whose name ends in `_token` is a token, and not a switch."""
    from tokenizers import AddedToken

    is_saved_token = isinstance(value, dict) and value.get("__type") == "AddedToken"
    return is_saved_token or isinstance(value, (str, AddedToken))


def _take_model_tokens(settings: Settings) -> Settings:
    """Remove the special tokens that only this model has from `settings`, and return them."""
    keys = [key for key in settings if key.endswith("_token") and isinstance(settings[key], str)]
    tokens = {key: settings.pop(key) for key in keys if key not in SPECIAL_TOKEN_KEYS}
    if isinstance(settings.get(EXTRA), dict) and "__type" not in settings[EXTRA]:
        tokens |= settings.pop(EXTRA)
    return tokens


def _merge_special_map(
    settings: Settings, special_map: Mapping[str, Any], model_tokens: Settings
) -> None:
    """Write the entries of special_tokens_map.json over `settings`, as older folders mean it."""
    for key, value in special_map.items():
        if key == EXTRA and isinstance(value, list):
            tokens = _list(settings.get(EXTRA) or [], EXTRA)
            special = [_special_token(token, key) for token in value]
            settings[EXTRA] = tokens + [token for token in special if token not in tokens]
        elif isinstance(value, dict) and key != EXTRA:
            settings[key] = _special_token(value, key)
        else:
            settings[key] = value
    if isinstance(settings.get(EXTRA), dict):
        model_tokens |= settings.pop(EXTRA)


def _read_decoder(value: object) -> list[tuple[int, AddedToken]]:
    """The ids and tokens of `added_tokens_decoder`."""
    if not isinstance(value, dict) or not all(isinstance(token, dict) for token in value.values()):
        raise BadInput(f"{SETTINGS}: {DECODER} should map ids to tokens")
    if not all(id_.isdecimal() for id_ in value):
        raise BadInput(f"{SETTINGS}: {DECODER} has a key that is no token id")
    return [(int(id_), _token(token, DECODER)) for id_, token in value.items()]


def _read_added(added: Mapping[str, Any], settings: Settings) -> list[tuple[int, AddedToken]]:
    """The ids and tokens of added_tokens.json; `settings` name those that are special."""
    from tokenizers import AddedToken

    special = {str(settings[key]) for key in SPECIAL_TOKEN_KEYS if settings.get(key)}
    special |= {str(token) for token in _list(settings.get(EXTRA), EXTRA)}
    tokens = []
    for text, id_ in added.items():
        if isinstance(id_, bool) or not isinstance(id_, int):
            raise BadInput(f"{ADDED}: the id of {text!r} is {id_!r}")
        is_special = text in special
        token = AddedToken(text, normalized=not is_special, special=is_special)
        tokens.append((id_, token))
    return tokens


def _token(value: object, key: str) -> Any:
    """A token as text, or with its settings where the file gives them."""
    from tokenizers import AddedToken

    if isinstance(value, AddedToken):
        return value
    if isinstance(value, str) and _is_text(value):
        return value
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        flags = {name: value[name] for name in FLAGS if name in value}
        try:
            return AddedToken(value["content"], **flags)
        except (TypeError, UnicodeEncodeError) as error:
            raise BadInput(f"{key} has a token that cannot be read ({error})") from error
    raise BadInput(f"{key} should be a token, and is {str(value)[:80]!r}")


def _is_text(text: str) -> bool:
    """Whether UTF-8 can write `text`; JSON can hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _special_token(value: object, key: str) -> Any:
    """A token of special_tokens_map.json, which is special whatever the file says."""
    return _token({**value, "special": True} if isinstance(value, dict) else value, key)


def _list(value: object, key: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadInput(f"{key} should be a list of tokens")
    return value
