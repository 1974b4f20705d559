"""What an answer costs and whether it is right: ids are counted, and failures have no mark."""

from __future__ import annotations

import time
from typing import Any

import pytest
import tiny_policy
import torch

from featherweight.base.errors import BadInput, UsageError
from featherweight.data.small_tokenizers import word_tokenizer
from featherweight.data.tasks import Grader, TaskExample
from featherweight.data.tasks.op_chain import WORDS
from featherweight.models.sampling import Rollouts
from featherweight.reasoning.cost import Cost, count_axes
from featherweight.reasoning.marking import Marking
from featherweight.reasoning.marks import Marks
from featherweight.reasoning.questions import Question, make_questions, num_buckets

WORD_IDS = word_tokenizer(WORDS)
END = WORD_IDS.encode("END")


class Fails(tiny_policy.FirstWord):
    def grade(self, example: TaskExample, answer: str) -> float | None:
        raise ValueError("no answer in sight")


class Never(tiny_policy.FirstWord):
    grade_seconds = 0.05

    def grade(self, example: TaskExample, answer: str) -> float | None:
        time.sleep(60)
        return 1.0


class Unsure(tiny_policy.FirstWord):
    def grade(self, example: TaskExample, answer: str) -> float | None:
        return None if "W" in answer else 1.0


def texts(answers: list[str], finish: tuple[Any, ...], group: list[int]) -> Rollouts:
    """Prompts of one token; the answers are in words and end with the end token, 0."""
    rows = [[5, *WORD_IDS.encode(answer)] for answer in answers]
    rows = [[*row, 0] if why == "end" else row for row, why in zip(rows, finish, strict=True)]
    shape = (len(rows), max(map(len, rows)))
    tokens, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
        mask[index, 1 : len(row)] = True
    numbers = torch.zeros(shape)
    starts = torch.ones(len(rows), dtype=torch.int64)
    return Rollouts(tokens, starts, mask, numbers, numbers, torch.tensor(group), finish)


def test_length_counts_think_ids() -> None:
    """Up to the marker and with it: not the answer, not characters. `#10` is one token."""
    answers = ["#10 3 W #10 3 END 7", "END 7", "a a a a"]
    ids = [[*WORD_IDS.encode(answer), 0] for answer in answers]
    counts = count_axes(ids, END)
    assert counts["thinking"].tolist() == [6, 1, 5]
    assert counts["answer"].tolist() == [2, 2, 0]
    assert Cost()(counts).tolist() == [6, 1, 5]
    assert Cost(thinking=1, answer=0.5)(counts).tolist() == [7, 2, 5]
    # A marker of several tokens, which the text begins twice.
    counts = count_axes([[1, 8, 8, 9, 4], [8], []], [8, 9])
    assert counts["thinking"].tolist() == [4, 1, 0]
    assert counts["answer"].tolist() == [1, 0, 0]


def test_costs_that_cannot_work() -> None:
    for settings in ({"thinking": 0.0}, {"thinking": -1.0}):
        with pytest.raises(UsageError, match="weights of a cost"):
            Cost(**settings)
    with pytest.raises(UsageError, match="none of"):
        Cost()({"words": torch.ones(2)})
    with pytest.raises(UsageError, match="think_end is empty"):
        count_axes([[1]], [])


def test_no_eos_is_wrong() -> None:
    """The same words are right when they end and wrong when they were cut."""
    marks = tiny_policy.marking()(
        texts(["a END", "a END", "1 END"], ("end", "length", "end"), [0, 0, 1]),
        tiny_policy.questions()[:2],
        step=7,
    )
    assert marks.correct.tolist() == [1, 0, 0]
    assert marks.is_cut.tolist() == [False, True, False]
    assert marks.lengths.tolist() == [3, 2, 3]
    assert (marks.step, marks.limit, marks.group.tolist()) == (7, tiny_policy.LIMIT, [0, 0, 1])


def test_a_cut_answer_is_not_graded() -> None:
    marks = tiny_policy.marking(Fails)(
        texts(["a", "a"], ("length", "end"), [0, 0]), tiny_policy.questions()
    )
    assert marks.has_mark.tolist() == [True, False] and marks.correct[0] == 0


def test_ungraded_is_masked() -> None:
    """A grader that fails, one that cannot say, and one that never ends."""
    answers = texts(["a W", "a END"], ("end", "end"), [0, 0])
    for kind, expected in ((Fails, [False, False]), (Unsure, [False, True])):
        marks = tiny_policy.marking(kind)(answers, tiny_policy.questions())
        assert marks.has_mark.tolist() == expected
    plain = tiny_policy.marking()
    with Grader(tiny_policy.task(Never)) as grader:
        slow = Marking(grader, plain.decode, plain.think_end, plain.limit)
        start = time.monotonic()
        assert not slow(answers, tiny_policy.questions()).has_mark.any()
        assert time.monotonic() - start < 5


def test_loops_are_seen_without_the_end_token() -> None:
    looping = " ".join(["W #1 3"] * 11)
    marks = tiny_policy.marking()(
        texts([looping, looping, "W #1 3"], ("end", "length", "end"), [0, 0, 0]),
        tiny_policy.questions(),
    )
    assert marks.repeats.tolist() == [True, True, False]


def test_buckets_are_those_of_the_questions() -> None:
    some = tiny_policy.questions()
    marks = tiny_policy.marking()(texts(["a"] * 4, ("end",) * 4, [0, 1, 2, 3]), some)
    assert marks.bucket.tolist() == [question.bucket for question in some[:4]]
    assert num_buckets(some) == 2 and num_buckets([]) == 1
    with pytest.raises(UsageError, match="group 3 of 2 questions"):
        tiny_policy.marking()(texts(["a"] * 4, ("end",) * 4, [0, 1, 2, 3]), some[:2])


def test_marks_that_cannot_be() -> None:
    one, group = torch.ones(2), torch.zeros(2).long()
    with pytest.raises(UsageError, match="between 0 and 1"):
        Marks(2 * one, one, group, 9)
    with pytest.raises(UsageError, match="cut at the limit"):
        Marks(one, one, group, 9, is_cut=torch.tensor([True, False]))


def test_questions_that_cannot_be() -> None:
    examples: list[TaskExample] = [{"ids": [1, 2]}, {"ids": []}]

    def encode(example: TaskExample) -> list[int]:
        return list(example["ids"])

    assert make_questions(examples[:1], encode) == [Question((1, 2), {"ids": [1, 2]})]
    with pytest.raises(BadInput, match="question 1 is empty"):
        make_questions(examples, encode)
    with pytest.raises(BadInput, match="question 0 has 2 tokens; .* context of 9"):
        make_questions(examples, encode, context=9, max_tokens=8)
    with pytest.raises(BadInput, match="bucket -1"):
        make_questions(examples[:1], encode, lambda example: -1)
