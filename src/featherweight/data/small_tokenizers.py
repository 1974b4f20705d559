"""Tokenizers of small models: one token a byte, a byte-level BPE that is trained on a text, or one
token a word.

They are ordinary fast tokenizers of transformers: `tokenizer.save_pretrained(folder)` puts them
beside a model, and every verb reads them. The first two have the same three special tokens (end of
text, which is also the padding, and the two of ChatML) and the same chat template. Every text has
tokens, because all 256 bytes are in the vocabulary, and no token is added before or after a text.

Byte-pair encoding: Sennrich et al. 2016, on bytes as in GPT-2. The same text and size give the same
vocabulary on every machine: the trainer breaks ties by the order of the ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import BadInput, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = END, TURN_START, TURN_END = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
UNKNOWN = "<|unknown|>"
NUM_BYTES = 256
SMALLEST_BPE = len(SPECIALS) + NUM_BYTES
LONGEST_LINE = 10_000  # characters that the trainer gets at once
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(context: int = 1_000_000) -> PreTrainedTokenizerFast:
    """A tokenizer of 259 tokens: the special tokens and one token a byte.

    context: tokens that the model reads at most, which transformers warns about.
    """
    return _train((), SMALLEST_BPE, context)


def bpe_tokenizer(text: str | Path, size: int, context: int = 1_000_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `size` tokens.

    Args: text, a text or the file that holds one (UTF-8); size, of the vocabulary with the special
    tokens; context, as for `byte_tokenizer`. Raises UsageError for a size below 259, BadInput when
    the file cannot be read or the text is too short for so many tokens.
    """
    if size < SMALLEST_BPE:
        raise UsageError(
            f"a BPE of {size} tokens: the special tokens and the bytes alone are {SMALLEST_BPE}"
        )
    content = text if isinstance(text, str) else _read(text)
    pieces = (content[i : i + LONGEST_LINE] for i in range(0, len(content), LONGEST_LINE))
    tokenizer = _train(pieces, size, context)
    if len(tokenizer) < size:
        raise BadInput(
            f"a text of {len(content)} characters has pairs for {len(tokenizer)} tokens only, not "
            f"{size}; give a longer text or ask for fewer tokens"
        )
    return tokenizer


def word_tokenizer(words: Sequence[str], context: int = 1_000_000) -> PreTrainedTokenizerFast:
    """One token for each of `words`, which are separated by spaces in a text, for synthetic tasks.
    Id 0 is the end of a text, 1 stands for every other word. context: as for `byte_tokenizer`.
    Raises UsageError for a word that is there twice or has spaces.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if phrases := [word for word in words if word.split() != [word]]:
        raise UsageError(f"{phrases[0]!r} is no word; words are separated by spaces")
    vocabulary = {word: id for id, word in enumerate((END, UNKNOWN, *words))}
    if len(vocabulary) < len(words) + 2:
        raise UsageError("a word is there twice")
    backend = Tokenizer(models.WordLevel(vocabulary, UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 text ({error})") from error


def _train(pieces: Iterable[str], size: int, context: int) -> PreTrainedTokenizerFast:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(pieces, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[TURN_START, TURN_END],
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
