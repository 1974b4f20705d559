"""Faults of free answers, and when a model is flagged for them."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from fake_engine import FakeEngine

from featherweight.base.errors import BadInput, UsageError
from featherweight.data.prompts import Prompt, load_prompts
from featherweight.evaluation.free_running import (
    FAULTS,
    FreeAnswer,
    answer_freely,
    compare_answers,
    encode_prompts,
)
from featherweight.inference import ChatTokenizer
from featherweight.inference.engine import Session

TOKENIZER = ChatTokenizer.of(tiny.tokenizer())
SHORT = FreeAnswer("fine", tuple(range(10)), False)
LOOP = FreeAnswer("so " * 50, (7,) * 50, True)
QUESTION = Prompt("question", ("Why?",))
NUMBER = Prompt("format", ("What is 7 plus 5?",), form="number")


def compare(num_loops: int, num_original_loops: int = 0, count: int = 100) -> dict[str, Any]:
    lights = [LOOP] * num_loops + [SHORT] * (count - num_loops)
    originals = [LOOP] * num_original_loops + [SHORT] * (count - num_original_loops)
    return compare_answers([QUESTION] * count, originals, lights, True)


def flags(entry: dict[str, Any]) -> list[str]:
    return [name for name, rate in entry["rates"].items() if rate["flag"]]


def test_faults_are_those_of_the_answer() -> None:
    assert SHORT.faults(QUESTION, True) == dict.fromkeys(FAULTS[:3], False)
    assert LOOP.faults(QUESTION, True) == {"loops": True, "endless": True, "empty": False}
    blank = FreeAnswer(" \n", (5,), False)
    assert blank.faults(NUMBER, True)["empty"] and blank.faults(NUMBER, True)["form_breaks"]
    assert not FreeAnswer("12.", (5,), False).faults(NUMBER, True)["form_breaks"]
    assert "form_breaks" not in blank.faults(NUMBER, False)


def test_a_model_is_flagged_beyond_the_interval_and_not_before() -> None:
    assert flags(compare(7)) == [] and flags(compare(8)) == ["loops", "endless"]
    assert flags(compare(5, count=20)) == [] and flags(compare(6, count=20)) == ["loops", "endless"]
    # An original that loops too is no excuse, and its own loops are no flag.
    assert flags(compare(40, 40)) == [] and flags(compare(10, 40)) == []
    entry = compare(50, 40)
    assert flags(entry) == ["loops", "endless"] and entry["num_flags"] == 2
    rate = entry["rates"]["loops"]
    assert (rate["light"], rate["original"], rate["prompts"]) == (0.5, 0.4, 100)
    assert rate["difference"]["mean"] == pytest.approx(0.1) and rate["difference"]["low"] > 0


def test_the_answers_that_differ_most_are_shown() -> None:
    prompts = [Prompt("question", (str(i),)) for i in range(9)]
    lights = [SHORT] * 9
    lights[4], lights[7] = LOOP, FreeAnswer("find", (1, 2), False)
    entry = compare_answers(prompts, [SHORT] * 9, lights, True)
    assert [sample["prompt"] for sample in entry["samples"]] == ["4", "7"]
    assert entry["samples"][0]["light_faults"] == ["loops", "endless"]
    assert entry["samples"][0]["original_faults"] == []
    assert entry["equal_answers"] == pytest.approx(7 / 9)


def test_no_prompt_with_a_form_gives_no_rate_of_form() -> None:
    assert "form_breaks" not in compare(0)["rates"]
    entry = compare_answers([NUMBER], [SHORT], [FreeAnswer("12", (1,), False)], True)
    assert entry["rates"]["form_breaks"]["original"] == 1.0
    assert "form_breaks" not in compare_answers([NUMBER], [SHORT], [SHORT], False)["rates"]
    with pytest.raises(BadInput, match="0 and 0 answers"):
        compare_answers([], [], [], True)


def test_prompts_go_through_the_template_where_there_is_one() -> None:
    talk, text = Prompt("talk", ("Hi.", "Hello!", "Who?")), Prompt("prose", text="Once")
    ids = encode_prompts(TOKENIZER, [talk, text])
    assert ids == [TOKENIZER.chat(talk.messages), TOKENIZER.encode("Once")]
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = None
    base = ChatTokenizer.of(tokenizer)
    plain = "Question: Hi.\nAnswer: Hello!\nQuestion: Who?\nAnswer:"
    assert encode_prompts(base, [talk, text]) == [base.encode(plain), base.encode("Once")]


class BatchEngine(FakeEngine):
    """An engine whose logits depend on the sessions that share a step, as rounding does."""

    def step(self, sessions: list[Session], tokens: list[int]) -> Any:
        shift = sum(session.length for session in sessions) % 7
        return super().step(sessions, tokens) * (1 + shift) % 3


def test_answers_are_the_same_in_every_run() -> None:
    ids = encode_prompts(TOKENIZER, load_prompts(20))
    runs = [answer_freely(BatchEngine(context=1024), TOKENIZER, ids, 24) for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]
    assert len({answer.tokens for answer in runs[0]}) > 5
    for answer in runs[0]:
        assert answer.is_endless == (len(answer.tokens) == 24)
        assert not TOKENIZER.end_ids & set(answer.tokens)
    with pytest.raises(UsageError, match="do not fit the model's context"):
        answer_freely(FakeEngine(context=20), TOKENIZER, ids, 24)
