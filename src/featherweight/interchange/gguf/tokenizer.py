"""Rebuilds the tokenizer that a GGUF file describes, so that it splits text exactly as in training.

Two kinds are read. Byte-level BPE ("gpt2"): the file holds the vocabulary, the merges, and the
*name* of the rule that splits text before merging (`tokenizer.ggml.pre`), but not the rule itself.
The rules are therefore listed in RULES. An unknown name raises BadInput, because a wrong rule would
silently give tokens that the model never saw in training. (transformers falls back to GPT-2's rule,
which splits "x  12" and "\n 2015" differently from the rule `smollm`.)

SentencePiece BPE ("llama", which Gemma's files use too): the file holds tokens with scores and no
merges. llama.cpp joins the two neighbours whose joined text is the token with the highest score.
The equivalent list of merges has every way to cut a token into two tokens, in the order of the
score of the token that the merge produces. Control tokens and user-defined tokens are split off
before merging.

A tokenizer is refused when decoding the tokens of a test text does not give the text again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...base.errors import BadInput
from .file import GGUFFile
from .stripping import takes_spaces

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6  # of tokenizer.ggml.token_type
SPACE = "▁"  # how SentencePiece writes a space
HINT = "give the original model folder or its hub id instead"
PROBE = "Hello world, it's 2024:  12 x 34\n\n\tdéjà vu — 你好 🙂"

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = "llama-bpe"
# Name of a splitting rule -> its regular expression. None is GPT-2's own rule; "digits" splits off
# single digits and then applies GPT-2's rule.
RULES: dict[str, str | None] = {
    "gpt-2": None,
    "smollm": "digits",
    LLAMA3: rf"{_WORDS}|\p{{N}}{{1,3}}|{_SYMBOLS}",
    "qwen2": rf"{_WORDS}|\p{{N}}|{_SYMBOLS}",
}
# Other names of these rules in llama.cpp. Its rule `default`, for files that name none, is that of
# no model.
ALIASES = {
    "deepseek-r1-qwen": "qwen2",
    "llama-v3": LLAMA3,
    "llama3": LLAMA3,
    "megrez": "qwen2",
}


def build(file: GGUFFile) -> PreTrainedTokenizerBase:
    """The tokenizer of the file, with its special tokens and chat template.

    Raises BadInput when the vocabulary is damaged or the kind of tokenizer or its splitting rule is
    unknown.
    """
    kind = file.values.get("tokenizer.ggml.model")
    if kind == "gpt2":
        return _byte_level(file)
    if kind == "llama":
        return _sentencepiece(file)
    raise BadInput(
        f"{file.path} has a tokenizer of kind {kind!r}; gpt2 and llama can be read: {HINT}"
    )


def eos_token_ids(file: GGUFFile) -> list[int]:
    """Ids that end an answer: end of text and, where it is another token, end of turn."""
    ids = [file.values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    return list(dict.fromkeys(id_ for id_ in ids if isinstance(id_, int)))


def _byte_level(file: GGUFFile) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens, types = _vocabulary(file)
    merges = [
        (first, second)
        for first, _, second in (pair.partition(" ") for pair in _strings(file, "merges"))
    ]
    name = file.values.get("tokenizer.ggml.pre")
    rule = ALIASES.get(name, name) if isinstance(name, str) else None
    if rule not in RULES:
        raise BadInput(
            f"{file.path} cuts text by the rule {name!r} (tokenizer.ggml.pre); "
            f"{', '.join((*RULES, *ALIASES))} are known: {HINT}"
        )
    try:
        model = models.BPE(
            {token: i for i, token in enumerate(tokens)}, merges, ignore_merges=rule == LLAMA3
        )
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise BadInput(
            f"{file.path}: the vocabulary does not fit the merges ({error}); fetch it again"
        ) from error
    backend = Tokenizer(model)
    if rule == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizer(RULES[rule])
    backend.decoder = decoders.ByteLevel()
    # For Llama 3, llama.cpp puts the bos token before a text unless the file says otherwise.
    return _complete(backend, file, tokens, types, begins_texts=rule == LLAMA3)


def _sentencepiece(file: GGUFFile) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens, types = _vocabulary(file)
    scores = file.values.get("tokenizer.ggml.scores")
    if (
        not isinstance(scores, list)
        or len(scores) != len(tokens)
        or not all(isinstance(score, float) for score in scores)
    ):
        raise BadInput(f"{file.path} has no score for each token; {HINT}")
    if file.values.get("tokenizer.ggml.remove_extra_whitespaces"):
        raise BadInput(f"{file.path} has a tokenizer that drops spaces; {HINT}")
    spellings = _spell_bytes(tokens, types)
    unknown = _special_tokens(file, spellings).get("unk_token")
    vocabulary = {token: i for i, token in enumerate(spellings)}
    backend = Tokenizer(
        models.BPE(
            vocabulary,
            _merges(spellings, types, scores),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    has_prefix = bool(file.values.get("tokenizer.ggml.add_space_prefix", True))
    escape = normalizers.Replace(" ", SPACE)
    prefix = [normalizers.Prepend(SPACE)] if has_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, escape])
    strip = [decoders.Strip(" ", 1, 0)] if has_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return _complete(backend, file, spellings, types, begins_texts=True)


def _spell_bytes(tokens: list[str], types: list[int]) -> list[str]:
    """The tokens, where byte tokens such as <0x09> are replaced by the ASCII character itself when
    longer tokens contain it.

    llama.cpp merges characters, also characters that exist only as byte tokens: two tabs become the
    token of two tabs although no token is a single tab. The tokenizers library merges only tokens,
    so the single character must be one.
    """
    vocabulary = set(tokens)
    characters = {
        character
        for token, type_ in zip(tokens, types, strict=True)
        if type_ in (NORMAL, USER_DEFINED) and len(token) > 1
        for character in token
        if character.isascii() and character not in vocabulary
    }
    by_byte = {f"<0x{ord(character):02X}>": character for character in characters}
    return [
        by_byte.get(token, token) if type_ == BYTE else token
        for token, type_ in zip(tokens, types, strict=True)
    ]


def _merges(tokens: list[str], types: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """Every pair of tokens whose joined text is a token; the pair with the best score comes
    first.
    """
    ids = {
        token: id_
        for id_, (token, type_) in enumerate(zip(tokens, types, strict=True))
        if type_ in (NORMAL, USER_DEFINED) or (type_ == BYTE and len(token) == 1)
    }
    candidates = []
    for token, id_ in ids.items():
        for cut in range(1, len(token)):
            first_id, second_id = ids.get(token[:cut]), ids.get(token[cut:])
            if first_id is not None and second_id is not None:
                candidates.append((-scores[id_], first_id, second_id))
    return [(tokens[first], tokens[second]) for _, first, second in sorted(candidates)]


def pre_tokenizer(rule: str | None) -> Any:
    """The part of a tokenizer that splits text before merging, for one of the values of `RULES`."""
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


def _complete(
    backend: Tokenizer, file: GGUFFile, tokens: list[str], types: list[int], begins_texts: bool
) -> PreTrainedTokenizerBase:
    """transformers' tokenizer around `backend`, with its added and special tokens.

    `begins_texts`: whether texts begin with the bos token when the file does not say it. Raises
    BadInput when a test text is not the same after encoding and decoding.
    """
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    backend.add_tokens(
        [
            AddedToken(
                token,
                special=type_ == CONTROL,
                normalized=False,
                rstrip=takes_spaces(file.values.get("general.name"), token),
            )
            for token, type_ in zip(tokens, types, strict=True)
            if type_ in (CONTROL, USER_DEFINED)
        ]
    )
    special = _special_tokens(file, tokens)
    _frame_texts(backend, file, special, begins_texts)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=_context_length(file),
        clean_up_tokenization_spaces=False,
        **special,
    )
    template = file.values.get("tokenizer.chat_template")
    if isinstance(template, str):
        tokenizer.chat_template = template
    ids = tokenizer(PROBE, add_special_tokens=False).input_ids
    if len(tokenizer) != len(tokens) or tokenizer.decode(ids) != PROBE:
        raise BadInput(f"{file.path}: text does not survive its tokenizer; {HINT}")
    return tokenizer


def _frame_texts(
    backend: Tokenizer, file: GGUFFile, special: dict[str, str], begins_texts: bool
) -> None:
    """Let `backend` add the bos and eos tokens around every text when the file asks for them."""
    from tokenizers import processors

    begins = file.values.get("tokenizer.ggml.add_bos_token", begins_texts)
    ends = file.values.get("tokenizer.ggml.add_eos_token", False)
    first = [special["bos_token"]] if begins and "bos_token" in special else []
    last = [special["eos_token"]] if ends and "eos_token" in special else []
    if first or last:
        one, two = ([*first, f"${name}", *last] for name in "AB")
        backend.post_processor = processors.TemplateProcessing(
            single=[f"{part}:0" for part in one],
            pair=[f"{part}:0" for part in one] + [f"{part}:1" for part in two],
            special_tokens=[(token, backend.token_to_id(token)) for token in {*first, *last}],
        )


def _vocabulary(file: GGUFFile) -> tuple[list[str], list[int]]:
    """Tokens and their types, by id."""
    tokens = _strings(file, "tokens")
    types = file.values.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    is_complete = isinstance(types, list) and len(types) == len(tokens)
    if not tokens or len(set(tokens)) != len(tokens) or not is_complete:
        raise BadInput(
            f"{file.path}: the vocabulary is damaged (empty, or a token twice); fetch it again"
        )
    table = file.tensors.get("token_embd.weight")
    if table is not None and len(tokens) > table.shape[0]:
        raise BadInput(f"{file.path} has {len(tokens)} tokens but fewer embeddings; fetch it again")
    return tokens, types


def _strings(file: GGUFFile, key: str) -> list[str]:
    values = file.values.get(f"tokenizer.ggml.{key}")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadInput(f"{file.path} has no tokenizer.ggml.{key}; {HINT}")
    return values


def _special_tokens(file: GGUFFile, tokens: list[str]) -> dict[str, str]:
    """transformers' name of a special token, such as `bos_token` -> the token."""
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    special = {}
    for role, key in names.items():
        id_ = file.values.get(f"tokenizer.ggml.{key}_token_id")
        if id_ is None:
            continue
        if not isinstance(id_, int) or not 0 <= id_ < len(tokens):
            raise BadInput(
                f"{file.path}: {key}_token_id is {id_!r} with {len(tokens)} tokens; fetch it again"
            )
        special[role] = tokens[id_]
    return special


def _context_length(file: GGUFFile) -> int:
    value = file.values.get(f"{file.values.get('general.architecture')}.context_length")
    return value if isinstance(value, int) and value > 0 else int(1e30)
