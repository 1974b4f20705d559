"""Added tokens that take the spaces after them, such as <|user|> of Phi-3.

GGUF files do not say which tokens do. llama.cpp decides by the name of the model: where
`general.name` contains phi-3 or phi3, all added tokens take the spaces after them except three,
which must exist; elsewhere none does. So a file gets the name with which its tokens are read as in
the original tokenizer.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ...base.errors import UsageError

_NAME = re.compile("(phi)-?3", re.IGNORECASE)
KEEPING_TOKENS = ("<unk>", "<s>", "<|endoftext|>")
# llama.cpp does not load a model of such a name without these tokens.
NEEDED_TOKENS = frozenset({*KEEPING_TOKENS, "</s>"})


def takes_spaces(model_name: object, token: str) -> bool:
    """Whether the added token `token` takes the spaces after it in a file whose `general.name` is
    `model_name`.
    """
    is_phi3 = isinstance(model_name, str) and _NAME.search(model_name) is not None
    return is_phi3 and token not in KEEPING_TOKENS


def exported_name(tokenizer: Any, name: str) -> str:
    """`name`, changed where llama.cpp would read the added tokens of `tokenizer` in another way.

    Raises UsageError when no name gives these tokens.
    """
    tokens = json.loads(tokenizer.backend_tokenizer.to_str())["added_tokens"]
    if not any(token["lstrip"] or token["rstrip"] for token in tokens):
        return _NAME.sub(r"\1 3", name)
    name = name if _NAME.search(name) else f"phi-3 {name}"
    wrong_tokens = [
        token["content"]
        for token in tokens
        if token["lstrip"] or token["rstrip"] != takes_spaces(name, token["content"])
    ]
    wrong_tokens += sorted(NEEDED_TOKENS - set(tokenizer.get_vocab()))
    if wrong_tokens:
        raise UsageError(
            "this tokenizer has tokens that take the spaces beside them, and GGUF holds only those "
            f"of Phi-3 ({wrong_tokens[0]!r} differs); --to hf keeps the tokenizer as it is"
        )
    return name
