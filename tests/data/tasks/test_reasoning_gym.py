"""The data sets of reasoning-gym, when the package is there."""

from __future__ import annotations

import pytest

from featherweight.base.errors import UsageError
from featherweight.data.tasks import Grader, ReasoningGym

pytest.importorskip("reasoning_gym")
DATASETS = ("chain_sum", "leg_counting", "basic_arithmetic", "gcd", "products", "gsm_symbolic")


@pytest.mark.parametrize("dataset", DATASETS)
def test_golds_are_right_and_hacks_are_not(dataset: str) -> None:
    task = ReasoningGym(dataset, count=5)
    for example in task.examples():
        gold = example["answer"]
        assert task.grade(example, f"<think>\nhm\n</think>\n\\boxed{{{gold}}}") == 1
        assert (task.difficulty(example) is None) == (dataset == "gsm_symbolic")
        wrong = [f"{gold} 3", f"\\boxed{{{gold}}} \\boxed{{3}}", f"\\boxed{{{gold} or 3}}", "3003"]
        assert [task.grade(example, answer) for answer in wrong] == [0, 0, 0, 0]


def test_answers_that_are_no_numbers() -> None:
    task = ReasoningGym("spell_backward", count=3)
    example = next(task.examples())
    with Grader(task) as grader:
        assert grader(example, example["answer"]).score == 1
        assert grader(example, example["answer"] + "x").score == 0
    assert task.difficulty(example) is None


def test_splits_and_settings() -> None:
    task = ReasoningGym("chain_sum", count=20, settings={"max_terms": 3})
    train, test = (list(task.examples(split)) for split in ("train", "test"))
    assert train != test and list(task.examples("train")) == train
    assert max(task.difficulty(example) or 0 for example in train) == 3
    for arguments, message in [
        ({"dataset": "chain_sums"}, "did you mean 'chain_sum'"),
        ({"settings": {"max_term": 3}}, "refuses 200 examples of chain_sum"),
        ({"settings": {"max_terms": 1}}, "refuses 200 examples"),
    ]:
        with pytest.raises(UsageError, match=message):
            ReasoningGym(**arguments)
    with pytest.raises(UsageError, match="no split 'valid'"):
        task.examples("valid")
