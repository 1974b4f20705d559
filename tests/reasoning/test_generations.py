"""Micro-batches of reinforcement: sampled when they are asked for, masked where nothing counts.

That compaction changes no sample is tested where it happens, in tests/models/test_rollouts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import tiny_policy
import torch
from torch import Tensor, nn

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.sampling import Sampling
from featherweight.data.tasks import TaskExample
from featherweight.models.sampling import Rollouts
from featherweight.reasoning.advantages import Control, RewardControl
from featherweight.reasoning.control_state import ControlState
from featherweight.reasoning.generations import Generations, Settings
from featherweight.reasoning.logprobs import stored_logprobs
from featherweight.reasoning.marking import Marking
from featherweight.reasoning.questions import Question
from featherweight.reasoning.rewards import Accuracy, Sizes
from featherweight.reasoning.samplers import LocalSampler

SETTINGS = Settings(
    prompts=3,
    group=4,
    steps=4,
    sampling=Sampling(max_tokens=tiny_policy.LIMIT),
    seed=1,
    bf16=False,
)


class HardQuestion(tiny_policy.FirstWord):
    """Cannot grade the chains of one operation."""

    def grade(self, example: TaskExample, answer: str) -> float | None:
        return None if len(example["operations"]) == 1 else super().grade(example, answer)


class Ungraded(tiny_policy.FirstWord):
    def grade(self, example: TaskExample, answer: str) -> float | None:
        return None


class Wrong(tiny_policy.FirstWord):
    def grade(self, example: TaskExample, answer: str) -> float | None:
        return 0.0


class Recorder(LocalSampler):
    """Keeps what it sampled, and the weights of the model at that time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, tiny_policy.END_IDS)
        self.samples: list[Rollouts] = []
        self.weights: list[Tensor] = []

    def generate(
        self, prompts: Sequence[Any], samples: int, sampling: Sampling, seed: int
    ) -> Rollouts:
        texts = super().generate(prompts, samples, sampling, seed)
        self.samples.append(texts)
        self.weights.append(next(self.model.parameters()).detach().clone())
        return texts


def generations(
    model: Any,
    settings: Settings = SETTINGS,
    *,
    sampler: LocalSampler | None = None,
    marking: Marking | None = None,
    control: Control | None = None,
    questions: Sequence[Question] | None = None,
    reference: Any = None,
) -> Generations:
    return Generations(
        model,
        tiny_policy.questions() if questions is None else questions,
        sampler or tiny_policy.sampler(model),
        marking or tiny_policy.marking(),
        ControlState(control or RewardControl(), Sizes(12, 2)),
        settings,
        reference,
    )


def test_rollouts_are_lazy() -> None:
    """Nothing is sampled before it is asked for; step 2 samples from the weights after step 1."""
    model = tiny_policy.policy()
    sampler = Recorder(model)
    batches = generations(model, sampler=sampler)
    assert len(batches) == 4 and sampler.samples == []
    first = batches[0]
    assert batches[0] is first and len(sampler.samples) == 1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    second = batches[1]
    assert torch.equal(sampler.weights[1], next(model.parameters()))
    assert not torch.equal(sampler.weights[0], sampler.weights[1])
    # The log-probabilities that were sampled are those of the model now.
    texts = sampler.samples[1]
    width = second["input_ids"].shape[1]
    second["loss_mask"] = texts.mask[:, :width]
    torch.testing.assert_close(
        stored_logprobs(model, second, 1.0), texts.logprobs[:, :width], rtol=0, atol=1e-5
    )
    with pytest.raises(IndexError):
        batches[4]


def test_a_sampler_follows_the_model_that_is_trained() -> None:
    """Also when it was made with another one."""
    model, other = tiny_policy.policy(), tiny_policy.policy(seed=1)
    expected = generations(model)[0]
    batch = generations(model, sampler=tiny_policy.sampler(other))[0]
    assert torch.equal(batch["input_ids"], expected["input_ids"])


def test_eos_in_length_and_loss() -> None:
    """The end token is a token of the answer: counted, and learned."""
    model = tiny_policy.policy()
    sampler = Recorder(model)
    batches = generations(model, sampler=sampler)
    batch, texts = batches[0], sampler.samples[0]
    assert "end" in texts.finish
    for row, why in enumerate(texts.finish):
        ids = batch["input_ids"][row][batch["loss_mask"][row]].tolist()
        assert ids == texts.answer(row)
        assert (ids[-1] in tiny_policy.END_IDS) == (why == "end")
        start = int(texts.prompt_lengths[row])
        assert int(batch["attention_mask"][row].sum()) == start + len(ids)
        assert not batch["loss_mask"][row, :start].any()
    mean = float(texts.lengths.double().mean())
    assert batches.figures["length"] == pytest.approx(mean)


def test_every_question_once_an_epoch() -> None:
    """Four batches of three questions are the twelve of them."""
    asked = []
    batches = generations(tiny_policy.policy())
    for number in range(4):
        asked += [tuple(row.tolist()) for row in batches[number]["input_ids"][::4, :3]]
    known = {question.ids[:3] for question in tiny_policy.questions()}
    assert {row[:3] for row in asked} == known


def test_groups_are_together() -> None:
    """The advantages of the four answers to each question sum to 0."""
    batch = generations(tiny_policy.policy())[0]
    sums = batch["advantages"].view(3, 4).sum(1)
    torch.testing.assert_close(sums, torch.zeros(3), rtol=0, atol=1e-6)
    assert batch["advantages"].any()


def test_updates_share_a_generation() -> None:
    model = tiny_policy.policy()
    sampler = Recorder(model)
    batches = generations(model, replace(SETTINGS, updates=2, steps=3), sampler=sampler)
    assert "old_logprobs" not in generations(model)[0]
    expected = stored_logprobs(model, batches[0], 1.0)
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    second = batches[1]
    assert len(sampler.samples) == 1
    assert torch.equal(batches[0]["old_logprobs"], expected)
    # They are those from before the first update.
    difference = stored_logprobs(model, second, 1.0) - second["old_logprobs"]
    assert float(difference.abs().max()) > 1e-3
    assert batches[2]["input_ids"].shape[0] == 12 and len(sampler.samples) == 2


def test_old_logprobs_have_the_precision_of_the_training_loop() -> None:
    model = tiny_policy.policy()
    settings = replace(SETTINGS, updates=2, bf16=True)
    batch = generations(model, settings, reference=model)[0]
    with torch.autocast("cpu", torch.bfloat16):
        expected = stored_logprobs(model, batch, 1.0)
    assert torch.equal(batch["old_logprobs"], expected)
    assert torch.equal(batch["reference_logprobs"], expected)
    assert not torch.equal(expected, stored_logprobs(model, batch, 1.0))


def test_ungraded_is_masked() -> None:
    """Questions that cannot be graded are in no sum, and take part in no loss."""
    model = tiny_policy.policy()
    batches = generations(model, marking=tiny_policy.marking(HardQuestion))
    masked = 0
    for number in range(4):
        batch = batches[number]
        for row in range(12):
            has_mark = bool(batch["loss_mask"][row].any())
            masked += not has_mark
            assert has_mark or float(batch["advantages"][row]) == 0
    # Three chains of one operation, four answers each; those that were cut are wrong all the same.
    assert 6 <= masked <= 12
    with pytest.raises(BadInput, match="none of the 12 answers .* could be graded"):
        generations(
            model,
            sampler=LocalSampler(model, range(tiny_policy.VOCABULARY)),  # all end at once
            marking=tiny_policy.marking(Ungraded),
        )[0]


def test_a_step_of_wrong_answers_has_no_loss_and_no_error() -> None:
    """Dynamic sampling leaves out every group; the step still has a weight to divide by."""
    control = RewardControl(Accuracy(), "group", drop=True)
    for settings in (SETTINGS, replace(SETTINGS, accumulate=2, updates=2)):
        batches = generations(
            tiny_policy.policy(), settings, marking=tiny_policy.marking(Wrong), control=control
        )
        batch = batches[0]
        assert batch["loss_mask"].any(1).all() and not batch["advantages"].any()
        assert batches.figures["all_wrong"] == batches.figures["no_advantage"] == 1
        assert batches.figures["accuracy"] == 0


def test_a_cap_that_truncates_everything() -> None:
    """Everything is wrong and nothing is NaN, and the figures say so."""
    model = tiny_policy.policy()
    sampler = LocalSampler(model, [tiny_policy.VOCABULARY])  # is never drawn
    settings = replace(SETTINGS, sampling=Sampling(max_tokens=1), mask_cut=True)
    marking = replace(tiny_policy.marking(), limit=1)
    batches = generations(model, settings, sampler=sampler, marking=marking)
    batch = batches[0]
    assert batches.figures["cut"] == 1.0 and batches.figures["accuracy"] == 0
    assert not batch["advantages"].any() and batch["loss_mask"].any()
    assert batches.figures["length"] == 1


def test_cut_answers_are_left_out_of_the_loss() -> None:
    model = tiny_policy.policy()
    sampler = Recorder(model)
    batch = generations(model, replace(SETTINGS, mask_cut=True), sampler=sampler)[0]
    expected = [why != "length" for why in sampler.samples[0].finish]
    assert batch["loss_mask"].any(1).tolist() == expected and False in expected


def test_a_micro_batch_may_be_empty() -> None:
    """Answers are sorted by length, so those that were cut are in one micro-batch; when they are
    left out, nothing in it counts, and the others of the step do.
    """
    settings = replace(SETTINGS, prompts=1, accumulate=8, steps=1, mask_cut=True)
    batches = generations(tiny_policy.policy(), settings)
    masks = [bool(batches[number]["loss_mask"].any()) for number in range(8)]
    assert masks[0] and not masks[-1] and sorted(masks, reverse=True) == masks


def test_answers_of_a_step_are_sorted_by_length() -> None:
    """Into micro-batches that are padded to their own longest; each answer keeps its advantage."""
    plain = generations(tiny_policy.policy(), replace(SETTINGS, prompts=4, accumulate=1))[0]
    batches = generations(tiny_policy.policy(), replace(SETTINGS, prompts=2, accumulate=2))
    parts = [batches[0], batches[1]]
    widths = [part["attention_mask"].sum(1) for part in parts]
    assert int(widths[0].max()) <= int(widths[1].min())
    for part in parts:
        assert part["input_ids"].shape[1] == int(part["attention_mask"].sum(1).max())

    def rows(batch: dict[str, torch.Tensor]) -> list[tuple[object, ...]]:
        return [
            (*ids[mask.bool()].tolist(), float(advantage))
            for ids, mask, advantage in zip(
                batch["input_ids"], batch["attention_mask"], batch["advantages"], strict=True
            )
        ]

    assert sorted(rows(parts[0]) + rows(parts[1])) == sorted(rows(plain))


def test_what_is_refused() -> None:
    model, some = tiny_policy.policy(), tiny_policy.questions()
    with pytest.raises(UsageError, match="needs 13 questions, and there are 12"):
        generations(model, replace(SETTINGS, prompts=13))
    with pytest.raises(UsageError, match="prompt of question 12 is empty"):
        generations(model, questions=[*some, Question((), {})])
    with pytest.raises(UsageError, match="question 12 has 60 tokens; .* context of 64"):
        generations(model, questions=[*some, Question((3,) * 60, {})])
    with pytest.raises(UsageError, match="limit of 9"):
        generations(model, marking=replace(tiny_policy.marking(), limit=9))
    for name in ("prompts", "accumulate", "updates", "steps", "group"):
        with pytest.raises(UsageError, match=f"{name}=0"):
            replace(SETTINGS, **{name: 0})
    with pytest.raises(UsageError, match="group=1"):
        replace(SETTINGS, group=1)
    for sampling in (
        Sampling(temperature=0.0),
        Sampling(top_k=5),
        Sampling(top_p=0.9),
        Sampling(min_p=0.1),
        Sampling(repetition_penalty=1.1),
    ):
        with pytest.raises(UsageError, match="whole distribution"):
            replace(SETTINGS, sampling=sampling)
