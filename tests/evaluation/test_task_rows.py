"""Rows of tasks: the scores of lm-evaluation-harness, and answers that cannot be graded."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from fake_engine import FakeEngine
from tests.data.tasks.rows import make_task

from featherweight.base.errors import UsageError
from featherweight.base.sampling import Sampling
from featherweight.data import tasks
from featherweight.evaluation.likelihood import LikelihoodScorer
from featherweight.evaluation.task_prompts import PromptWriter
from featherweight.evaluation.task_rows import task_rows
from featherweight.evaluation.task_summary import summarize_task
from featherweight.inference import ChatTokenizer, generate

TOKENIZER = ChatTokenizer.of(tiny.tokenizer())


class Unsure(tasks.OpChain):
    """Chains whose grader fails on every second example."""

    max_tokens = 12

    def grade(self, example, answer):
        if len(example["operations"]) % 2:
            raise ValueError("no idea")
        return 1.0


def test_choices_are_scored_in_three_ways(tmp_path) -> None:
    engine, task = FakeEngine(), make_task("ARCChallenge", tmp_path)
    examples = list(task.examples())
    rows = list(task_rows(task, examples, engine, TOKENIZER))
    assert [row["index"] for row in rows] == [0, 1]
    for row, example in zip(rows, examples, strict=True):
        text, choices = task.prompt(example), task.choices(example)
        ids = [TOKENIZER.encode(f"{text} {choice}") for choice in choices]
        num_context = len(TOKENIZER.encode(text))
        with LikelihoodScorer(engine) as scorer:
            logprobs = [scorer.score(i[:num_context], i[num_context:]).logprob for i in ids]
        assert row["logprobs"] == pytest.approx(logprobs)
        best = int(np.argmax(logprobs))
        by_length = int(np.argmax([p / len(c) for p, c in zip(logprobs, choices, strict=True)]))
        assert row["scores"]["acc"] == (best == example["gold"])
        assert row["scores"]["acc_norm"] == (by_length == example["gold"])
        assert row["answer"] == choices[best]


def test_a_continuation_is_right_when_it_is_greedy(tmp_path) -> None:
    engine, task = FakeEngine(), make_task("LAMBADA", tmp_path)
    examples = list(task.examples())
    (row, _) = task_rows(task, examples, engine, TOKENIZER)
    assert row["scores"] == {"acc": 0.0} and row["logprob"] < 0
    ids = TOKENIZER.encode(" door")
    context = TOKENIZER.encode(task.prompt(examples[0]))

    def greedy_row(tokens):
        logits = np.zeros(300, np.float32)
        num_written = len(tokens) - len(context)
        logits[ids[min(max(0, num_written), len(ids) - 1)]] = 20
        return logits

    engine.row = greedy_row  # type: ignore[method-assign]
    (row, _) = task_rows(task, examples, engine, TOKENIZER)
    assert row["scores"] == {"acc": 1.0}
    summary = summarize_task(task, [row])
    assert summary["metrics"]["perplexity"]["mean"] == pytest.approx(1.0, abs=1e-4)


def test_answers_are_those_of_generate() -> None:
    engine, task = FakeEngine(), Unsure(count=6)
    examples = list(task.examples())
    rows = list(task_rows(task, examples, engine, TOKENIZER))
    for row, example in zip(rows, examples, strict=True):
        ids = TOKENIZER.encode(task.prompt(example))
        sampling = Sampling(task.max_tokens, temperature=0, stop=task.stop)
        deltas = list(generate(engine, TOKENIZER, ids, sampling))
        assert row["answer"] == "".join(delta.text for delta in deltas)
        assert (row["num_tokens"], row["finish"]) == (len(deltas), deltas[-1].finish)
    assert engine.num_open_sessions == 0


def test_answers_without_a_grade_count_neither_way() -> None:
    engine, task = FakeEngine(), Unsure(count=6)
    rows = list(task_rows(task, list(task.examples()), engine, TOKENIZER))
    assert [row["scores"]["acc"] for row in rows] == [None, 1.0] * 3
    summary = summarize_task(task, rows)
    assert summary["metrics"]["acc"]["mean"] == 1.0
    assert summary["ungraded"] == 3 and "no idea" in next(iter(summary["ungraded_reasons"]))
    assert summarize_task(task, rows[:1])["metrics"]["acc"]["mean"] is None


def test_some_examples_can_be_skipped(tmp_path) -> None:
    for task in (Unsure(count=6), make_task("ARCEasy", tmp_path)):
        examples = list(task.examples())
        rows = list(task_rows(task, examples, FakeEngine(), TOKENIZER))
        skip = {0, 3}
        others = list(task_rows(task, examples, FakeEngine(), TOKENIZER, skip=skip))
        assert others == [row for row in rows if row["index"] not in skip]


def test_prompts_in_the_chat_template(tmp_path) -> None:
    task = make_task("ARCEasy", tmp_path)
    example = next(iter(task.examples()))
    protocol = PromptWriter(TOKENIZER, task, True).describe(example)
    turn = f"<|im_start|>user\n{task.prompt(example)}<|im_end|>\n<|im_start|>assistant\n"
    assert protocol["first_prompt"] == turn
    assert protocol["first_ids"] == TOKENIZER.encode_plain(turn)
    assert protocol["chat_template"] == TOKENIZER.template_digest is not None
    context, continuation = PromptWriter(TOKENIZER, task, True).pairs(example)[0]
    assert context + continuation == TOKENIZER.encode_plain(f"{turn}ice")
    plain = PromptWriter(TOKENIZER, task, False).describe(example)
    assert (plain["chat"], plain["chat_template"]) == (False, None)
    (tokenizer := tiny.tokenizer()).chat_template = None
    with pytest.raises(UsageError, match="no chat template"):
        next(task_rows(task, [example], FakeEngine(), ChatTokenizer.of(tokenizer), chat=True))


def test_answers_longer_than_the_context_are_refused() -> None:
    task = tasks.OpChain(count=1)
    with pytest.raises(UsageError, match="answers of 256 tokens do not fit"):
        next(task_rows(task, list(task.examples()), FakeEngine(context=200), TOKENIZER))
