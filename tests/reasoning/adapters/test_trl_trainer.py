"""A real GRPOTrainer of TRL with our reward and with our advantages; skipped without TRL."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed")
from featherweight.base.errors import BadInput, Unsupported, UsageError
from featherweight.data.tasks import Grader
from featherweight.data.tasks.op_chain import OpChain
from featherweight.models.sampling import Rollouts
from featherweight.reasoning.adapters.trl import (
    LengthReward,
    ShortARCTrainer,
    checkpoint_callback,
)
from featherweight.reasoning.adapters.trl.mixin import SIGNATURES, ShortARCMixin
from featherweight.reasoning.adapters.trl.rows import Columns
from featherweight.reasoning.advantages import Control, RewardControl
from featherweight.reasoning.control_state import ControlState
from featherweight.reasoning.governor import Governor
from featherweight.reasoning.marking import Marking
from featherweight.reasoning.questions import Question
from featherweight.reasoning.rewards import Kimi, Sizes
from featherweight.reasoning.short_arc import ShortARC

from . import trl_runs as runs
from .toy_grading import even_word_rewards, even_words
from .two_ranks_runs import run_two_ranks

# Warnings of TRL and of what it imports are not ours.
pytestmark = pytest.mark.filterwarnings("default")
SIZES = Sizes(buckets=3)
GOVERNOR = Governor(warmup=0, ramp=2, tolerance=0.4)
SCALAR = ShortARC(form="scalar", floor=1, gate_low=0, governor=GOVERNOR)
DECOUPLED = replace(SCALAR, form="decoupled")
BUCKET = Columns(bucket="bucket")


@dataclass(frozen=True)
class EvenWords(OpChain):
    """`even_words` as a task of ours."""

    def grade(self, example: Any, answer: str) -> float | None:
        return even_words(example, answer)


def reward_trainer(folder: Path, rule: Any = SCALAR, **changes: Any) -> tuple[Any, LengthReward]:
    reward = LengthReward(rule, even_words, runs.FORMAT, runs.GROUP, columns=BUCKET, sizes=SIZES)
    return runs.RewardTrainer(**runs.arguments(reward, folder, **changes)), reward


def advantage_trainer(folder: Path, control: Control = DECOUPLED, **changes: Any) -> Any:
    return runs.AdvantageTrainer(
        **runs.arguments(even_word_rewards, folder, **changes),
        control=control,
        answer_format=runs.FORMAT,
        columns=BUCKET,
        sizes=SIZES,
    )


def rollouts(inputs: list[Any], answers: list[list[int]]) -> Rollouts:
    """The completions of TRL as our samplers give them."""
    prompts = [runs.TOKENIZER(row["prompt"])["input_ids"] for row in inputs]
    texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    width = max(map(len, texts))
    mask = torch.zeros(len(texts), width, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        mask[row, len(prompt) : len(prompt) + len(answer)] = True
    end = runs.TOKENIZER.eos_token_id
    return Rollouts(
        torch.tensor([text + [end] * (width - len(text)) for text in texts]),
        torch.tensor([len(prompt) for prompt in prompts]),
        mask,
        torch.zeros(len(texts), width),
        torch.zeros(len(texts), width),
        torch.arange(len(texts)) // runs.GROUP,
        tuple("end" if answer[-1] == end else "length" for answer in answers),
    )


def our_advantages(records: list[Any], control: Control) -> list[torch.Tensor]:
    """The advantages that our loop gives to the completions of `records`, generation by generation:
    its marking and its state.
    """
    state, advantages = ControlState(control, SIZES), []
    with Grader(EvenWords()) as grader:
        marking = Marking(grader, runs.decode, runs.FORMAT.think_end, runs.LIMIT)
        for step, (inputs, answers, _) in enumerate(records):
            questions = [Question((1,), row, row["bucket"]) for row in inputs[:: runs.GROUP]]
            marks = marking(rollouts(inputs, answers), questions, step)
            advantages.append(state.take(marks).numbers.float())
    return advantages


@pytest.mark.parametrize("rule", [Kimi(), SCALAR], ids=["kimi", "short_arc"])
def test_reward_in_trl_equals_our_loop(tmp_path: Path, rule: Any) -> None:
    trainer, _ = reward_trainer(tmp_path, rule)
    before = runs.weights(trainer.model)
    trainer.train()
    assert len(trainer.records) == runs.STEPS
    assert not torch.equal(before, runs.weights(trainer.model))
    control = rule if isinstance(rule, ShortARC) else RewardControl(rule)
    ours = our_advantages(trainer.records, control)
    for (_, _, advantages), expected in zip(trainer.records, ours, strict=True):
        torch.testing.assert_close(advantages, expected, rtol=0, atol=2e-6)


def test_advantages_in_trl_equal_our_loop(tmp_path: Path) -> None:
    trainer = advantage_trainer(tmp_path)
    before = runs.weights(trainer.model)
    trainer.train()
    assert not torch.equal(before, runs.weights(trainer.model))
    ours = our_advantages(trainer.records, DECOUPLED)
    plain = our_advantages(trainer.records, RewardControl())
    for (_, _, advantages), expected in zip(trainer.records, ours, strict=True):
        torch.testing.assert_close(advantages, expected, rtol=0, atol=0)
    assert any(not torch.equal(a, b) for a, b in zip(ours, plain, strict=True)), "no pressure"
    assert "control/pressure" in trainer.state.log_history[0]


def test_two_ranks_of_trl(tmp_path: Path) -> None:
    """Three groups of four rows on two processes: the second group lies on both."""
    run_two_ranks(tmp_path, "trl")
    first, second = (torch.load(tmp_path / f"trl_{rank}.pt", weights_only=False) for rank in (0, 1))
    records = [
        (a[0] + b[0], a[1] + b[1], torch.cat([a[2], b[2]]))
        for a, b in zip(first["records"], second["records"], strict=True)
    ]
    assert [len(record[0]) for record in records] == [12] * 4
    for (_, _, advantages), expected in zip(
        records, our_advantages(records, DECOUPLED), strict=True
    ):
        torch.testing.assert_close(advantages, expected, rtol=0, atol=0)
    for name, tensor in first["state"].items():
        torch.testing.assert_close(tensor, second["state"][name], equal_nan=True)


def test_governor_once_a_generation(tmp_path: Path) -> None:
    changes = {"steps_per_generation": 2, "num_iterations": 2, "max_steps": 8}
    trainer = advantage_trainer(tmp_path, **changes)
    trainer.train()
    assert len(trainer.records) == 2
    assert trainer.control_state.steps == 2


def test_eval_is_unshaped(tmp_path: Path) -> None:
    trainer = advantage_trainer(tmp_path / "a", per_device_eval_batch_size=8)
    trainer.eval_dataset = runs.dataset()
    figures = trainer.evaluate()
    assert trainer.control_state.steps == 0
    rows = [row for record in trainer.records for row in zip(record[0], record[1], strict=True)]
    right = [answer[-1] == 0 and even_words({}, runs.decode(answer[:-1])) for _, answer in rows]
    assert figures["eval_reward"] == pytest.approx(sum(map(bool, right)) / len(right))
    trainer, reward = reward_trainer(tmp_path / "b", per_device_eval_batch_size=8)
    trainer.eval_dataset = runs.dataset()
    trainer.evaluate()
    assert reward.state_dict()["num_steps"] == 0


def test_governor_resume(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    trainer = advantage_trainer(tmp_path / "run", **changes)
    trainer.train()
    whole_run = trainer.control_state.tensors()
    again = advantage_trainer(tmp_path / "run", **changes)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert again.control_state.tensors().keys() == whole_run.keys()
    for name, tensor in again.control_state.tensors().items():
        torch.testing.assert_close(tensor, whole_run[name], rtol=0, atol=0)
    # A reward function has no checkpoint of its own, so it is told what is missing.
    trainer, reward = reward_trainer(tmp_path / "run", **changes)
    trainer.add_callback(checkpoint_callback(reward))
    with pytest.raises(BadInput, match="this rule"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))


def test_trl_signatures() -> None:
    """The methods and parameters of the installed TRL that we rely on."""
    from trl import GRPOTrainer

    for name, parameters in SIGNATURES.items():
        assert tuple(inspect.signature(getattr(GRPOTrainer, name)).parameters) == parameters
    names = {"accelerator", "reward_funcs", "eos_token_ids", "scale_rewards", "num_generations"}
    source = inspect.getsource(GRPOTrainer)
    assert [name for name in names if f"self.{name}" not in source] == []
    assert 'reward_kwargs["log_metric"] = self._log_metric' in source  # how evaluation is known


def test_drifted_signatures_are_refused() -> None:
    class Later:
        def _calculate_rewards(self, inputs: Any, rollouts: Any) -> None: ...

        def _generate_and_score_completions(self, inputs: Any) -> None: ...

    class Trainer(ShortARCMixin, Later):
        pass

    with pytest.raises(Unsupported, match=r"_calculate_rewards.*is \(self, inputs, rollouts\)"):
        Trainer(control=DECOUPLED, answer_format=runs.FORMAT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_rewards": "group"}, "scale_rewards='group'"),
        ({"max_completion_length": 41}, "limit=16, but max_completion_length=41"),
    ],
)
def test_settings_are_checked(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        advantage_trainer(tmp_path, **changes)


def test_one_reward_function(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 reward functions"):
        ShortARCTrainer(
            **runs.arguments([even_word_rewards, even_word_rewards], tmp_path),
            control=DECOUPLED,
            answer_format=runs.FORMAT,
        )
