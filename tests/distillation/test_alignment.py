"""Tokenizations of one text are aligned in bytes, and tokenizers that cannot be are refused."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import tiny
import tokenizer_pairs as pairs
import torch
from hypothesis import given
from hypothesis import strategies as st

from featherweight.base.errors import UsageError
from featherweight.data.tokens import encode
from featherweight.distillation import (
    AlignedBatches,
    AlignedText,
    TokenizerMatch,
    aligned_chat,
    aligned_windows,
    match_tokenizers,
)
from featherweight.distillation.alignment import token_groups


@lru_cache
def match_of(teacher: Any, student: Any) -> TokenizerMatch:
    return match_tokenizers(teacher(), student())


def spans(match: TokenizerMatch, text: AlignedText) -> tuple[list[bytes], list[bytes]]:
    """The bytes of each group that counts, as each side has them."""
    sides = (
        (match.teacher, text.teacher_ids, text.teacher_groups),
        (match.student, text.student_ids, text.student_groups),
    )
    contents: list[list[bytes]] = []
    for vocabulary, ids, groups in sides:
        numbers = sorted({int(g) for g in groups if g >= 0})
        contents.append(
            [
                b"".join(
                    vocabulary.contents[int(id)]
                    for id, g in zip(ids, groups, strict=True)
                    if g == number
                )
                for number in numbers
            ]
        )
    return contents[0], contents[1]


@given(st.lists(st.integers(1, 4), min_size=1), st.lists(st.integers(1, 4), min_size=1))
def test_groups_are_the_shortest_spans(teacher: list[int], student: list[int]) -> None:
    """Against a walk over every byte."""
    excess = sum(teacher) - sum(student)
    teacher, student = [*teacher, max(0, -excess)], [*student, max(0, excess)]
    groups = token_groups(teacher, student)
    expected: tuple[list[int], list[int]] = ([], [])
    number, ends = (
        0,
        [{sum(side[: i + 1]) for i in range(len(side))} for side in (teacher, student)],
    )
    for position in range(1, sum(teacher) + 1):
        for side, numbers in zip((teacher, student), expected, strict=True):
            while len(numbers) < len(side) and sum(side[: len(numbers) + 1]) == position:
                numbers.append(number)
        number += position in ends[0] and position in ends[1]
    assert groups == expected


@pytest.mark.parametrize(("teacher", "student"), pairs.COMBINATIONS)
def test_groups_have_the_same_bytes(teacher: Any, student: Any) -> None:
    """Emoji and Chinese in single bytes on one side, in merges on the other."""
    match = match_tokenizers(teacher(), student())
    (text,) = aligned_windows(match, [pairs.TEXT], 200)
    first, second = spans(match, text)
    assert first == second
    assert pairs.TEXT.encode().endswith(b"".join(first))
    assert len(b"".join(first)) > len(pairs.TEXT.encode()) - 8
    counts = [torch.bincount(g[g >= 0]) for g in (text.teacher_groups, text.student_groups)]
    assert max(int(c.max()) for c in counts) > 1


def test_a_group_that_is_half_a_character() -> None:
    """A student whose merges join the last byte of an emoji to what follows."""
    smile = "\U0001f600."
    joined = pairs.bpe_tokenizer("\u00ff\U0001f600. " * 40 + pairs.PLAY * 4, 300)
    match = match_tokenizers(pairs.fine(), joined)
    (text,) = aligned_windows(match, [f"is {smile} it"], 64)
    first, second = spans(match, text)
    assert first == second
    assert len(text.student_ids) < len(text.teacher_ids)
    assert any(b"\x98" in span for span in first)


@pytest.mark.parametrize("length", [13, 40])
@pytest.mark.parametrize(("teacher", "student"), pairs.COMBINATIONS)
def test_windows_fit_and_count_every_group_once(teacher: Any, student: Any, length: int) -> None:
    text = pairs.PLAY
    match = match_tokenizers(teacher(), student())
    windows = aligned_windows(match, [text], length)
    assert all(max(len(w.teacher_ids), len(w.student_ids)) <= length for w in windows)
    assert all(w.num_groups for w in windows)
    joined = b"".join(b"".join(spans(match, window)[1]) for window in windows)
    ((whole),) = aligned_windows(match, [text], 1000)
    assert joined == b"".join(spans(match, whole)[0])
    counted = torch.cat([w.student_groups[w.student_groups >= 0] for w in windows])
    assert counted.unique_consecutive().tolist() == counted.unique().tolist()


def test_texts_may_end() -> None:
    match = match_tokenizers(pairs.sentencepiece(), pairs.fine())
    (text,) = aligned_windows(match, ["the fox is there"], 64, has_end=True)
    ends = int(text.teacher_ids[-1]), int(text.student_ids[-1])
    assert ends == (match.teacher.tokenizer.eos_token_id, match.student.tokenizer.eos_token_id)
    assert text.teacher_groups[-1] == text.student_groups[-1] >= 0
    assert ends in set(zip(match.teacher_ids.tolist(), match.student_ids.tolist(), strict=True))
    match.student.tokenizer.eos_token = None
    try:
        with pytest.raises(UsageError, match="no EOS token"):
            aligned_windows(match, ["the"], 64, has_end=True)
    finally:
        pairs.fine.cache_clear()


def test_batches_are_padded() -> None:
    match = match_tokenizers(pairs.fine(), pairs.coarse())
    texts = aligned_windows(match, ["the other", "there is another morning"], 64)
    (batch,) = (AlignedBatches(texts, 2)[i] for i in range(1))
    for side in batch.values():
        padding = side["attention_mask"] == 0
        assert padding.any()
        assert (side["groups"][padding] == -1).all()
        assert (side["groups"][:, 0] == -1).all()


def test_what_a_conversation_teaches() -> None:
    """Only the answers, and the token that ends them."""
    teacher, student = tiny.tokenizer(), pairs.coarse()
    match = match_tokenizers(teacher, student, has_chats=True)
    chat = [
        {"role": "user", "content": "is it there?"},
        {"role": "assistant", "content": "the other is there"},
    ]
    text = aligned_chat(match, chat)
    first, second = spans(match, text)
    assert first == second
    assert b"".join(first) == b"the other is there<|im_end|>"
    student = pairs.bpe_tokenizer(pairs.PLAY * 4, 310)
    student.chat_template = student.chat_template.replace("im_start", "turn")
    with pytest.raises(UsageError, match="chat templates differ.*im_start.*turn"):
        match_tokenizers(teacher, student, has_chats=True)
    with pytest.raises(UsageError, match="write this conversation differently"):
        aligned_chat(match_tokenizers(teacher, student), chat)
    with pytest.raises(UsageError, match="has no chat template"):
        match_tokenizers(pairs.sentencepiece(), student, has_chats=True)


def test_matched_tokens_have_the_same_bytes() -> None:
    match = match_tokenizers(pairs.sentencepiece(), pairs.coarse())
    assert match.kind == "aligned"
    contents = [
        [side.contents[i] for i in ids.tolist()]
        for side, ids in ((match.teacher, match.teacher_ids), (match.student, match.student_ids))
    ]
    end = contents[0].index(b"</s>")
    assert contents[1].pop(end) == b"<|endoftext|>"
    place = contents[0].index(b"a")
    contents[0].pop(end)
    assert contents[0] == contents[1]
    assert len(set(match.student_ids.tolist())) == len(match.student_ids)
    assert b" the" in contents[0] and b"\xe2" in contents[0]
    # "a" is the letter's token, not the byte's that no text gets.
    assert match.teacher.pieces[match.teacher_ids[place]] == "a"


def test_kinds() -> None:
    fine = pairs.fine()
    assert match_tokenizers(fine, fine).kind == "same"
    assert str(match_tokenizers(fine, fine)) == "the same tokenizer, 300 tokens"
    padded = match_tokenizers(fine, fine, teacher_logits=320, student_logits=300)
    assert (padded.kind, padded.vocabulary) == ("padded", 300)
    longer = pairs.bpe_tokenizer(tiny.TEXT * 4, 300)
    longer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    match = match_tokenizers(longer, fine)
    assert (match.kind, match.vocabulary) == ("padded", 300)
    assert match_tokenizers(fine, pairs.coarse()).kind == "aligned"
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0)).tolist()
    match = match_tokenizers(fine, pairs.permuted(fine, order))
    assert match.kind == "aligned"
    assert match.student_ids.tolist() == [order[id] for id in match.teacher_ids.tolist()]


def test_vocab_truncation_needs_equal_ids() -> None:
    """One id that differs below the shared size, and the vocabularies are not the same."""
    fine = pairs.fine()
    order = list(range(300))
    order[298], order[299] = 299, 298
    match = match_tokenizers(fine, pairs.permuted(fine, order), teacher_logits=320)
    assert (match.kind, match.vocabulary) == ("aligned", None)


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (pairs.lower_case, "does not keep the text.*the quick.*The Quick.*normalises"),
        (pairs.only_words, r"does not keep the text.*no token for a part of it \(\[UNK\]\)"),
    ],
)
def test_tokenizers_that_lose_text_are_refused(student: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        match_tokenizers(pairs.fine(), student(), min_share=0)


def test_other_refusals() -> None:
    with pytest.raises(UsageError, match=r"273 tokens in common, 91.0 % of the .* less than 95 %"):
        match_tokenizers(pairs.fine(), pairs.coarse(), min_share=0.95)
    with pytest.raises(UsageError, match="no fast tokenizer"):
        match_tokenizers(object(), pairs.fine())
    match = match_tokenizers(pairs.lower_case(), pairs.fine(), texts=["all lower case"])
    with pytest.raises(UsageError, match="'but not this' where the text has 'But Not this'"):
        aligned_windows(match, ["fine", "But Not this"], 64)
    with pytest.raises(UsageError, match="windows of 2 tokens are too short"):
        aligned_windows(match_tokenizers(pairs.fine(), pairs.single_bytes()), ["is there the"], 2)


def test_a_bos_is_before_every_window() -> None:
    tokenizers = [pairs.bpe_tokenizer(text * 4, 300) for text in (tiny.TEXT, pairs.PLAY)]
    for tokenizer in tokenizers:
        from tokenizers.processors import TemplateProcessing

        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
    match = match_tokenizers(*tokenizers)
    windows = aligned_windows(match, [pairs.PLAY], 12)
    assert all(w.teacher_ids[0] == w.student_ids[0] == 1 for w in windows)
    joined = b"".join(b"".join(spans(match, window)[0]) for window in windows)
    assert joined == pairs.PLAY.encode()
    assert encode(tokenizers[0], "a") != tokenizers[0]("a").input_ids


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=30))
def test_any_text_is_aligned(text: str) -> None:
    for teacher, student in ((pairs.fine, pairs.sentencepiece), (pairs.coarse, pairs.fine)):
        match = match_of(teacher, student)
        for window in aligned_windows(match, [text], 200):
            first, second = spans(match, window)
            assert first == second
            assert text.encode().endswith(b"".join(first))
            assert [len(window.teacher_groups), len(window.student_groups)] == [
                len(window.teacher_ids),
                len(window.student_ids),
            ]
