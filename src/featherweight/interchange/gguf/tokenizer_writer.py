"""Writes a tokenizer as GGUF metadata, so that llama.cpp splits text as in training.

Two kinds are written. Byte-level BPE (`gpt2`): tokens, merges, and the name of the rule that splits
text before merging. The name is the one whose rule in `tokenizer.RULES` equals the tokenizer's own
rule. An unknown rule raises UsageError, because with another rule the model would get tokens that
it never saw in training. SentencePiece BPE (`llama`): tokens with scores. A runtime joins the pair
whose joined token has the best score, so the score of a token is minus the rank of the first merge
that produces it.

A GGUF file needs a token for each row of the embedding; a row without one gets a placeholder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...base.errors import ExportFailed, UsageError
from .file import GGUFFile
from .tokenizer import PROBE, RULES, SPACE, build, pre_tokenizer
from .types import package

NUM_PROBED_TOKENS = 200
HINT = "--to hf keeps the tokenizer as it is"


def check_exportable(tokenizer: Any, folder: Path) -> None:
    """Raise UsageError unless the tokenizer of `folder` is a fast one: only these describe their
    splitting rule.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(
            f"{folder} has a tokenizer without a tokenizer.json, which GGUF needs; {HINT}"
        )


def add_tokenizer(writer: Any, tokenizer: Any, num_rows: int, ends: list[int]) -> None:
    """Add all keys of `tokenizer` to `writer`, a `gguf.GGUFWriter`.

    `num_rows`: the number of rows of the embedding. `ends`: the ids that end an answer; the first
    becomes the eos token. Raises UsageError for a tokenizer that GGUF cannot describe exactly.
    """
    description: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    model = description["model"]
    if model["type"] != "BPE":
        raise UsageError(f"a tokenizer of kind {model['type']} is not written to GGUF; {HINT}")
    tokens, types = _tokens(tokenizer, description, num_rows)
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(tokens, merges))
        writer.add_add_space_prefix(_has_prefix(description))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_rule_name(description))
        writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _add_special_tokens(writer, tokenizer, ends)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def compare_tokenizer(file: GGUFFile, tokenizer: Any) -> None:
    """Rebuild the tokenizer of `file` and raise ExportFailed unless it splits some test texts as
    `tokenizer` does.
    """
    file_tokenizer = build(file)
    last_ids = range(max(len(tokenizer) - NUM_PROBED_TOKENS, 0), len(tokenizer))
    texts = [PROBE, tokenizer.decode(list(last_ids), skip_special_tokens=True)]
    if file.values["tokenizer.ggml.model"] == "gpt2":
        # For SentencePiece, implementations differ in the space after a special token, so special
        # tokens inside a text are compared for byte-level BPE only.
        texts.append(PROBE.join(tokenizer.all_special_tokens))
    for text in texts:
        if file_tokenizer(text).input_ids != tokenizer(text).input_ids:
            raise ExportFailed(
                f"{file.path}: the tokenizer, read again, cuts {text[:40]!r} differently; {HINT}"
            )


def _tokens(
    tokenizer: Any, description: dict[str, Any], num_rows: int
) -> tuple[list[str], list[int]]:
    """The token of every row of the embedding, and its type."""
    kinds = package().TokenType
    by_id = {id_: token for token, id_ in tokenizer.get_vocab().items()}
    if max(by_id) >= num_rows:
        raise UsageError(
            f"the tokenizer has {max(by_id) + 1} tokens, the model {num_rows} embeddings"
        )
    added_tokens = {entry["id"]: entry for entry in description["added_tokens"]}
    byte_fallback = bool(description["model"].get("byte_fallback"))
    tokens, types = [], []
    for id_ in range(num_rows):
        token = by_id.get(id_)
        if token is None:
            kind = kinds.UNUSED
        elif id_ in added_tokens:
            kind = kinds.CONTROL if added_tokens[id_]["special"] else kinds.USER_DEFINED
        else:
            kind = kinds.BYTE if byte_fallback and _is_byte(token) else kinds.NORMAL
        tokens.append(f"[PAD{id_}]" if token is None else token)
        types.append(int(kind))
    if byte_fallback and tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = int(kinds.UNKNOWN)
    return tokens, types


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    ranks: dict[str, int] = {}
    for rank, (first, second) in enumerate(merges):
        ranks.setdefault(first + second, rank)
    return [-float(ranks.get(token, 0)) for token in tokens]


def _has_prefix(description: dict[str, Any]) -> bool:
    """Whether the tokenizer puts a space before a text.

    Raises UsageError unless it writes spaces as SentencePiece does.
    """
    text = json.dumps(
        [description.get("normalizer"), description.get("pre_tokenizer")], ensure_ascii=False
    )
    if SPACE not in text:
        raise UsageError(
            f"this tokenizer does not write spaces as {SPACE}, as SentencePiece does; {HINT}"
        )
    return '"Prepend"' in text or (
        '"Metaspace"' in text and '"prepend_scheme": "never"' not in text
    )


def _rule_name(description: dict[str, Any]) -> str:
    """The name of the rule by which the tokenizer splits text before merging."""
    rule = _normalize(description.get("pre_tokenizer"))
    normalizer = (description.get("normalizer") or {}).get("type")
    for name, known_rule in RULES.items():
        if rule == _normalize(_to_dict(pre_tokenizer(known_rule))) and normalizer == (
            "NFC" if name == "qwen2" else None
        ):
            return name
    raise UsageError(
        "this tokenizer cuts text by a rule that GGUF has no known name for "
        f"({', '.join(RULES)} are known); {HINT}"
    )


def _to_dict(rule: Any) -> Any:
    """The JSON object with which the tokenizers library stores a pre-tokenizer."""
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = rule
    return json.loads(backend.to_str())["pre_tokenizer"]


def _normalize(rule: Any) -> Any:
    """A splitting rule without the settings that do not change where it splits."""
    if not isinstance(rule, dict):
        return rule
    normal = {key: value for key, value in rule.items() if key != "trim_offsets"}
    if "pretokenizers" in normal:
        normal["pretokenizers"] = [_normalize(part) for part in normal["pretokenizers"]]
    if normal.get("type") == "ByteLevel":
        normal.setdefault("use_regex", True)
    return normal


def _add_special_tokens(writer: Any, tokenizer: Any, ends: list[int]) -> None:
    ids = {
        "bos": tokenizer.bos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }
    for name, id_ in ids.items():
        if id_ is not None:
            getattr(writer, f"add_{name}_token_id")(id_)
    if ends:
        writer.add_eos_token_id(ends[0])
    if len(ends) > 1:
        writer.add_eot_token_id(ends[1])
    inner, complete = (
        tokenizer("a", add_special_tokens=is_complete).input_ids for is_complete in (False, True)
    )
    if complete not in (inner, [tokenizer.bos_token_id, *inner]):
        raise UsageError(f"this tokenizer adds other tokens than a first one to every text; {HINT}")
    writer.add_add_bos_token(complete != inner)
    writer.add_add_eos_token(False)
