"""A tokenizer as GGUF metadata, so that llama.cpp and transformers cut text as the model was
trained.

Two kinds are written. Byte-level BPE (`gpt2`): tokens, merges, and the name of the rule that cuts
text first, found by comparing the tokenizer's own rule with those of `gguf_tokenizer.RULES`.
Sentencepiece BPE (`llama`): tokens with scores; a runtime merges the pair whose token scores best,
so each token's score is minus the rank of the first merge that makes it. A rule that is not known
is refused: by another one the model would see tokens it never saw.

Ids count embedding rows: rows without a token get placeholders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...base.errors import BadInput, ExportFailed, UsageError
from .file import GGUFFile, package
from .tokenizer import PROBE, RULES, build, cutter

SPACE = "▁"
PROBED_TOKENS = 200
INSTEAD = "--to hf keeps the tokenizer as it is"


def read(folder: Path) -> Any:
    """The fast tokenizer of a model folder. Raises BadInput when it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise BadInput(f"{folder}: the tokenizer cannot be loaded ({error})") from error
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(
            f"{folder} has a tokenizer without a tokenizer.json, which GGUF needs; {INSTEAD}"
        )
    return tokenizer


def add_tokenizer(writer: Any, tokenizer: Any, num_rows: int, ends: list[int]) -> None:
    """Write all keys of `tokenizer`; `num_rows` embeddings; `ends`: ids that end an answer, the
    first the usual one.

    Raises UsageError for tokenizers that GGUF has no exact words for.
    """
    described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    if described["model"]["type"] != "BPE":
        raise UsageError(
            f"a tokenizer of kind {described['model']['type']} is not written to GGUF; {INSTEAD}"
        )
    tokens, types = _tokens(tokenizer, described, num_rows)
    merges = [
        tuple(m.split(" ")) if isinstance(m, str) else tuple(m)
        for m in described["model"]["merges"]
    ]
    if described["model"].get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(tokens, merges))
        writer.add_add_space_prefix(_prefixes(described))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_rule(described))
        writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _add_specials(writer, tokenizer, ends)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def compare_tokenizer(file: GGUFFile, tokenizer: Any) -> None:
    """Raise ExportFailed unless the tokenizer of `file`, rebuilt, cuts probing texts as `tokenizer`
    does.
    """
    rebuilt = build(file)
    last = range(max(len(tokenizer) - PROBED_TOKENS, 0), len(tokenizer))
    texts = [PROBE, tokenizer.decode(list(last), skip_special_tokens=True)]
    if file.values["tokenizer.ggml.model"] == "gpt2":
        # Sentencepiece's readers disagree about the space after a special token; byte-level ones
        # may not.
        texts.append(PROBE.join(tokenizer.all_special_tokens))
    for text in texts:
        if rebuilt(text).input_ids != tokenizer(text).input_ids:
            raise ExportFailed(
                f"{file.path}: the tokenizer, read again, cuts {text[:40]!r} differently; {INSTEAD}"
            )


def _tokens(
    tokenizer: Any, described: dict[str, Any], num_rows: int
) -> tuple[list[str], list[int]]:
    kinds = package().TokenType
    by_id = {id_: token for token, id_ in tokenizer.get_vocab().items()}
    if max(by_id) >= num_rows:
        raise UsageError(
            f"the tokenizer has {max(by_id) + 1} tokens, the model {num_rows} embeddings"
        )
    added = {entry["id"]: entry for entry in described["added_tokens"]}
    byte_fallback = bool(described["model"].get("byte_fallback"))
    tokens, types = [], []
    for id_ in range(num_rows):
        token = by_id.get(id_)
        if token is None:
            kind = kinds.UNUSED
        elif id_ in added:
            kind = kinds.CONTROL if added[id_]["special"] else kinds.USER_DEFINED
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
    first: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        first.setdefault(left + right, rank)
    return [-float(first.get(token, 0)) for token in tokens]


def _prefixes(described: dict[str, Any]) -> bool:
    """Whether text gets a space in front; UsageError unless spaces are written as sentencepiece
    does.
    """
    text = json.dumps(
        [described.get("normalizer"), described.get("pre_tokenizer")], ensure_ascii=False
    )
    if SPACE not in text:
        raise UsageError(
            f"this tokenizer does not write spaces as {SPACE}, as sentencepiece does; {INSTEAD}"
        )
    return '"Prepend"' in text or (
        '"Metaspace"' in text and '"prepend_scheme": "never"' not in text
    )


def _rule(described: dict[str, Any]) -> str:
    """The name of the rule by which the tokenizer cuts text before merging."""
    own = _plain(described.get("pre_tokenizer"))
    normalizer = (described.get("normalizer") or {}).get("type")
    for name, rule in RULES.items():
        if own == _plain(_as_json(cutter(rule))) and normalizer == (
            "NFC" if name == "qwen2" else None
        ):
            return name
    raise UsageError(
        f"this tokenizer cuts text by a rule that GGUF has no known name for ({', '.join(RULES)} are known); {INSTEAD}"
    )


def _as_json(cutting: Any) -> Any:
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = cutting
    return json.loads(backend.to_str())["pre_tokenizer"]


def _plain(cutting: Any) -> Any:
    """A cutting rule without what does not change where it cuts."""
    if not isinstance(cutting, dict):
        return cutting
    plain = {key: value for key, value in cutting.items() if key != "trim_offsets"}
    if "pretokenizers" in plain:
        plain["pretokenizers"] = [_plain(part) for part in plain["pretokenizers"]]
    if plain.get("type") == "ByteLevel":
        plain.setdefault("use_regex", True)
    return plain


def _add_specials(writer: Any, tokenizer: Any, ends: list[int]) -> None:
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
    plain, full = (
        tokenizer("a", add_special_tokens=specials).input_ids for specials in (False, True)
    )
    if full not in (plain, [tokenizer.bos_token_id, *plain]):
        raise UsageError(
            f"this tokenizer adds other tokens than a first one to every text; {INSTEAD}"
        )
    writer.add_add_bos_token(full != plain)
    writer.add_add_eos_token(False)
