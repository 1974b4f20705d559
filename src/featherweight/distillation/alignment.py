"""Two tokenizations of one text, aligned: the batches of `CrossTokenizerLoss`.

A *group* is the shortest span of bytes at whose ends both tokenizers have a boundary:

    teacher   the|re|fore|it|is      groups   0 0 1 2 2
    student   there|fore|it is       groups   0   1 2

Before a group both models have read the same text, whatever their tokens were. Bytes and not
characters, because a token of a byte-level vocabulary may end inside a character.

Texts are tokenized whole and cut between groups into windows that fit both models. A model whose
tokenizer puts a BOS before every text gets it before every window. The first token of a window has
no prediction; without a BOS on both sides the first group is context only, and it is the last
one of the window before, so that every group of a text but the first counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..base.errors import UsageError
from ..data.examples import Message, Turns, chat_example
from ..data.tokens import prefix
from ..training import ShuffledBatches
from .tokenizer_match import TokenizerMatch
from .vocabulary import difference

NO_GROUP = -1


def token_groups(
    teacher_lengths: Sequence[int], student_lengths: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The number of the group that each token lies in, from 0, for both sides.

    Args: the bytes of each token; the sums agree. A token without bytes belongs to the group that
    ends there, or to the first one.
    """
    teacher_ends, student_ends = np.cumsum(teacher_lengths), np.cumsum(student_lengths)
    assert not len(teacher_ends) or teacher_ends[-1] == student_ends[-1]
    common_ends = np.setdiff1d(np.intersect1d(teacher_ends, student_ends), [0])
    return (
        np.searchsorted(common_ends, teacher_ends).tolist(),
        np.searchsorted(common_ends, student_ends).tolist(),
    )


@dataclass(frozen=True, eq=False)
class AlignedText:
    """One text as both models read it. ids: token ids. groups: of each token, rising and the same
    numbers on both sides; NO_GROUP for context: tokens that shall not be predicted.
    """

    teacher_ids: Int64[Tensor, " teacher_length"]
    student_ids: Int64[Tensor, " student_length"]
    teacher_groups: Int64[Tensor, " teacher_length"]
    student_groups: Int64[Tensor, " student_length"]

    @classmethod
    def of(
        cls,
        teacher: tuple[Sequence[int], Sequence[int]],
        student: tuple[Sequence[int], Sequence[int]],
    ) -> AlignedText:
        """Of (ids, groups) of both sides. A group that is not on both sides, or begins with the
        first token of one, becomes context.
        """
        (teacher_ids, teacher_groups), (student_ids, student_groups) = (
            (torch.tensor(ids), torch.tensor(groups)) for ids, groups in (teacher, student)
        )
        groups = set(teacher_groups.tolist()) & set(student_groups.tolist())
        groups -= {int(teacher_groups[0]), int(student_groups[0]), NO_GROUP}
        is_counted = torch.tensor(sorted(groups), dtype=torch.int64)
        return cls(
            teacher_ids,
            student_ids,
            teacher_groups.where(torch.isin(teacher_groups, is_counted), NO_GROUP),
            student_groups.where(torch.isin(student_groups, is_counted), NO_GROUP),
        )

    @property
    def num_groups(self) -> int:
        """How many groups count."""
        return len(set(self.student_groups.tolist()) - {NO_GROUP})


def aligned_windows(
    match: TokenizerMatch, texts: Iterable[str], length: int, has_end: bool = False
) -> list[AlignedText]:
    """The windows of every text, of at most `length` tokens on either side.

    has_end: whether each text ends with the token that ends texts, which is a group of its own.
    Raises UsageError for a text that one of the tokenizers does not keep, a group that does not fit
    a window, and an end that a tokenizer does not have; before anything is trained.
    """
    prefixes = [prefix(side.tokenizer) for side in (match.teacher, match.student)]
    windows: list[AlignedText] = []
    for text in texts:
        sides = [side.encode(text) for side in (match.teacher, match.student)]
        lengths = [
            side.lengths(ids, text)[1]
            for side, ids in zip((match.teacher, match.student), sides, strict=True)
        ]
        groups = list(token_groups(*lengths))
        if has_end:
            sides = [[*ids, end] for ids, end in zip(sides, _ends(match), strict=True)]
            last = groups[0][-1] + 1 if groups[0] else 0
            groups = [[*numbers, last] for numbers in groups]
        windows += _cut(sides, groups, prefixes, length)
    return windows


def aligned_chat(
    match: TokenizerMatch, messages: Sequence[Message], turns: Turns = "all"
) -> AlignedText:
    """A conversation in the chat template, of whose groups those count that lie in an answer.

    Raises UsageError as `chat_example` does, and when the two templates write different texts.
    """
    sides = []
    for vocabulary in (match.teacher, match.student):
        example = chat_example(vocabulary.tokenizer, messages, turns)
        sides.append((example, *vocabulary.lengths(example.ids.tolist())))
    (_, teacher_bytes, teacher_lengths), (_, student_bytes, student_lengths) = sides
    if teacher_bytes != student_bytes:
        excerpts = difference(teacher_bytes, student_bytes)
        raise UsageError(
            f"{match.teacher.name} and {match.student.name} write this conversation differently: "
            f"{excerpts[0]!r} and {excerpts[1]!r}; give both the same template"
        )
    numbers = token_groups(teacher_lengths, student_lengths)
    is_outside = {
        number
        for (example, _, _), groups in zip(sides, numbers, strict=True)
        for number, is_answer in zip(groups, example.loss_mask.tolist(), strict=True)
        if not is_answer
    }
    teacher, student = (
        (example.ids.tolist(), [NO_GROUP if n in is_outside else n for n in groups])
        for (example, _, _), groups in zip(sides, numbers, strict=True)
    )
    return AlignedText.of(teacher, student)


class AlignedBatches(ShuffledBatches):
    """Micro-batches of `size` aligned texts, padded on the right, in another order in every epoch.

    A batch is {"teacher": side, "student": side}, a side being `input_ids`, `attention_mask` and
    `groups`, each (B, length of the side).
    """

    def __init__(
        self, texts: Sequence[AlignedText], size: int, epochs: int = 1, seed: int = 0
    ) -> None:
        super().__init__(texts, size, epochs, seed, collate)


def collate(texts: Sequence[AlignedText]) -> dict[str, Any]:
    """A batch of aligned texts, see `AlignedBatches`."""
    return {
        "teacher": _pad([t.teacher_ids for t in texts], [t.teacher_groups for t in texts]),
        "student": _pad([t.student_ids for t in texts], [t.student_groups for t in texts]),
    }


def _pad(ids: list[Tensor], groups: list[Tensor]) -> dict[str, Tensor]:
    # The padding is id 0: no prediction reads it, and every vocabulary has it.
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "groups": pad_sequence(groups, batch_first=True, padding_value=NO_GROUP),
    }


def _ends(match: TokenizerMatch) -> tuple[int, int]:
    ends = tuple(side.tokenizer.eos_token_id for side in (match.teacher, match.student))
    if None in ends:
        raise UsageError("a tokenizer has no EOS token, so texts cannot end; use has_end=False")
    return ends[0], ends[1]


def _cut(
    sides: Sequence[list[int]],
    groups: Sequence[list[int]],
    prefixes: Sequence[list[int]],
    length: int,
) -> list[AlignedText]:
    """Windows of whole groups; see the module for what they share."""
    num_groups = groups[0][-1] + 1 if groups[0] else 0
    # Where each group begins, and the last one ends.
    starts = [np.searchsorted(numbers, np.arange(num_groups + 1)) for numbers in groups]
    rooms = [length - len(ids) for ids in prefixes]
    num_shared = 0 if all(prefixes) else 1
    windows = []
    first = 0
    while first < num_groups - num_shared:
        last = num_groups
        for begin, room in zip(starts, rooms, strict=True):
            last = min(last, int(np.searchsorted(begin, begin[first] + room, side="right")) - 1)
        if last <= first + num_shared:
            sizes = [
                int(begin[min(first + 1 + num_shared, num_groups)] - begin[first])
                for begin in starts
            ]
            raise UsageError(
                f"windows of {length} tokens are too short: a span of text takes {max(sizes)} "
                "tokens before both tokenizers come to the same place"
            )
        window = [
            ([*prefix, *ids[begin[first] : begin[last]]],
             [*[NO_GROUP] * len(prefix), *numbers[begin[first] : begin[last]]])
            for ids, numbers, begin, prefix in zip(sides, groups, starts, prefixes, strict=True)
        ]  # fmt: skip
        windows.append(AlignedText.of(window[0], window[1]))
        first = last if last == num_groups else last - num_shared
    return windows
