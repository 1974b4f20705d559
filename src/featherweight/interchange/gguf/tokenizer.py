"""The tokenizer that a GGUF file describes, rebuilt so that text is cut exactly as in training.

A GGUF holds vocabulary and merges, and only the *name* of the rule that cuts text before merging
(`tokenizer.ggml.pre`). The rules are therefore listed here; an unknown one is refused, because a
wrong rule gives tokens that the model never saw and no error anywhere (transformers falls back to
GPT-2's rule: for `smollm` that cuts "x  12" and "\n 2015" differently). Sentencepiece vocabularies
go through transformers' own reader and must survive a round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...base.errors import BadInput
from .file import GGUFFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

CONTROL, USER_DEFINED = 3, 4
INSTEAD = "give the original model folder or its hub id instead"
PROBE = "Hello world, it's 2024:  12 x 34\n\n\tdéjà vu — 你好 🙂"

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The rule's name -> what is cut off first: None for GPT-2's own rule, "digits" for single digits
# and then GPT-2's rule.
RULES: dict[str, str | None] = {
    "gpt-2": None,
    "default": None,
    "smollm": "digits",
    "llama-bpe": rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}",
    "qwen2": rf"{_WORDS}|\p{{N}}|{_REST}",
}


def build(file: GGUFFile) -> PreTrainedTokenizerBase:
    """The tokenizer of the file, with its special tokens and chat template.

    Raises BadInput when the vocabulary is damaged or its kind or cutting rule is not known.
    """
    kind = file.values.get("tokenizer.ggml.model")
    if kind == "gpt2":
        return _byte_level(file)
    if kind == "llama":
        return _sentencepiece(file)
    raise BadInput(
        f"{file.path} has a tokenizer of kind {kind!r}; gpt2 and llama can be read: {INSTEAD}"
    )


def eos_token_ids(file: GGUFFile) -> list[int]:
    """Ids that end an answer: end of text and, where it is another token, end of turn."""
    found = [file.values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    return list(dict.fromkeys(id_ for id_ in found if isinstance(id_, int)))


def _byte_level(file: GGUFFile) -> PreTrainedTokenizerBase:
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    tokens, types = _vocabulary(file)
    merges = [
        (left, right)
        for left, _, right in (pair.partition(" ") for pair in _strings(file, "merges"))
    ]
    rule = file.values.get("tokenizer.ggml.pre", "default")
    if rule not in RULES:
        raise BadInput(
            f"{file.path} cuts text by the rule {rule!r}; {', '.join(RULES)} are known: {INSTEAD}"
        )
    try:
        model = models.BPE(
            {token: i for i, token in enumerate(tokens)}, merges, ignore_merges=rule == "llama-bpe"
        )
    except Exception as error:  # the Rust library raises nothing narrower
        raise BadInput(
            f"{file.path}: the vocabulary does not fit the merges ({error}); fetch it again"
        ) from error
    backend = Tokenizer(model)
    if rule == "qwen2":
        from tokenizers import normalizers

        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = cutter(RULES[rule])
    backend.decoder = decoders.ByteLevel()
    added = [
        AddedToken(token, special=type_ == CONTROL, normalized=False)
        for token, type_ in zip(tokens, types, strict=True)
        if type_ in (CONTROL, USER_DEFINED)
    ]
    backend.add_tokens(added)
    special = _special_tokens(file, tokens)
    _add_bos(backend, file, special.get("bos_token"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=_context_length(file),
        clean_up_tokenization_spaces=False,
        **special,
    )
    return _checked(tokenizer, file, len(tokens))


def _sentencepiece(file: GGUFFile) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokens, _ = _vocabulary(file)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(file.path.parent), gguf_file=file.path.name, local_files_only=True
        )
    except Exception as error:  # many kinds of error for what is, to the user, one
        raise BadInput(f"{file.path}: the tokenizer cannot be read ({error}); {INSTEAD}") from error
    return _checked(tokenizer, file, len(tokens))


def cutter(rule: str | None) -> Any:
    """The part of a tokenizer that cuts text before merging, for one of the values of `RULES`."""
    from tokenizers import Regex, pre_tokenizers

    if rule is None:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if rule == "digits":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    split = pre_tokenizers.Split(Regex(rule), behavior="isolated")
    return pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _add_bos(backend: Tokenizer, file: GGUFFile, bos: str | None) -> None:
    """Begin every text with the beginning-of-text token where the file says so."""
    from tokenizers import processors

    if file.values.get("tokenizer.ggml.add_bos_token") and bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos}:0 $A:0",
            pair=f"{bos}:0 $A:0 {bos}:1 $B:1",
            special_tokens=[(bos, backend.token_to_id(bos))],
        )


def _vocabulary(file: GGUFFile) -> tuple[list[str], list[int]]:
    tokens = _strings(file, "tokens")
    types = file.values.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if not tokens or len(set(tokens)) != len(tokens) or len(types) != len(tokens):
        raise BadInput(
            f"{file.path}: the vocabulary is damaged (empty, or a token twice); fetch it again"
        )
    if (
        "token_embd.weight" in file.entries
        and len(tokens) > file.entries["token_embd.weight"].shape[0]
    ):
        raise BadInput(f"{file.path} has {len(tokens)} tokens but fewer embeddings; fetch it again")
    return tokens, types


def _strings(file: GGUFFile, key: str) -> list[str]:
    values = file.values.get(f"tokenizer.ggml.{key}")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadInput(f"{file.path} has no tokenizer.ggml.{key}; {INSTEAD}")
    return values


def _special_tokens(file: GGUFFile, tokens: list[str]) -> dict[str, str]:
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    found = {}
    for role, key in names.items():
        id_ = file.values.get(f"tokenizer.ggml.{key}_token_id")
        if id_ is None:
            continue
        if not isinstance(id_, int) or not 0 <= id_ < len(tokens):
            raise BadInput(
                f"{file.path}: {key}_token_id is {id_!r} with {len(tokens)} tokens; fetch it again"
            )
        found[role] = tokens[id_]
    return found


def _context_length(file: GGUFFile) -> int:
    value = file.values.get(f"{file.values.get('general.architecture')}.context_length")
    return value if isinstance(value, int) and value > 0 else int(1e30)


def _checked(
    tokenizer: PreTrainedTokenizerBase, file: GGUFFile, num_tokens: int
) -> PreTrainedTokenizerBase:
    template = file.values.get("tokenizer.chat_template")
    if isinstance(template, str):
        tokenizer.chat_template = template
    ids = tokenizer(PROBE, add_special_tokens=False).input_ids
    if len(tokenizer) != num_tokens or tokenizer.decode(ids) != PROBE:
        raise BadInput(f"{file.path}: text does not survive its tokenizer; {INSTEAD}")
    return tokenizer
