"""Students that learn from answers on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from featherweight.base.errors import UsageError
from featherweight.base.run_folder import RunFolder
from featherweight.distillation import AnswerBatches, Recipe, distill, keep_blocks, spread
from featherweight.evaluation import KL, evaluate
from featherweight.inference.reference import ReferenceEngine
from featherweight.models.answers import Answers, Full, Kind, Sampled, TopK, write_answers
from featherweight.training.losses import ForwardKL, TokenLoss, TopKKL

RECIPE = Recipe(steps=30, batch=4, lr=3e-3, warmup=2)


@pytest.fixture
def teacher() -> nn.Module:
    model = tiny.llama()[0].eval()
    with torch.no_grad():
        # Random weights answer almost the same everywhere; a sharper head gives something to learn.
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


@pytest.fixture
def student() -> nn.Module:
    return tiny.llama(seed=7)[0]


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, 300, (8, 17), generator=torch.Generator().manual_seed(0))


def answers_of(teacher: nn.Module, tokens: torch.Tensor, folder: Path, kind: Kind) -> Answers:
    return write_answers(teacher, tokens, folder, kind, tokenizer=tiny.tokenizer(), model_id="t")


@pytest.mark.parametrize(
    "kind", [Full("float32"), TopK(32, "float32"), TopK(8, "float32", 8), Sampled(32)]
)
def test_a_student_comes_closer_to_its_teacher(
    teacher: nn.Module, student: nn.Module, tokens: torch.Tensor, tmp_path: Path, kind: Kind
) -> None:
    answers = answers_of(teacher, tokens, tmp_path, kind)
    before = evaluate(student, [KL(teacher, tokens)]).quality["kl"]["mean"]
    for step in distill(student, answers, RECIPE):
        assert not step.is_skipped
    after = evaluate(student.eval(), [KL(teacher, tokens)]).quality["kl"]["mean"]
    assert after < 0.8 * before


def test_full_answers_give_the_loss_of_a_live_teacher(
    teacher: nn.Module, student: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    answers = answers_of(teacher, tokens, tmp_path, Full("float32"))
    batch = AnswerBatches(answers, 4)[0]
    cached = TokenLoss(ForwardKL(temperature=2.0))(student, batch)
    live = TokenLoss(ForwardKL(temperature=2.0), teacher=teacher)(student, batch["input_ids"])
    torch.testing.assert_close(cached.total, live.total)
    assert cached.weight == live.weight == 4 * 16


def test_tail_full_k_equals_kl(
    teacher: nn.Module, student: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    answers = answers_of(teacher, tokens, tmp_path, TopK(300, "float32"))
    batch = AnswerBatches(answers, 4)[0]
    got = TokenLoss(TopKKL())(student, batch)
    live = TokenLoss(ForwardKL(), teacher=teacher)(student, batch["input_ids"])
    torch.testing.assert_close(got.total, live.total, rtol=1e-4, atol=1e-4)


def test_a_run_that_is_stopped_continues_bit_for_bit(
    teacher: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    answers = answers_of(teacher, tokens, tmp_path / "answers", TopK(8))

    def train(folder: Path, stop: int | None) -> dict[str, torch.Tensor]:
        student = tiny.llama(seed=7)[0]
        with RunFolder(folder, {}) as run:
            for step in distill(student, answers, Recipe(steps=8, batch=4, warmup=2), run):
                if step.number == stop:
                    step.save()
                    break
        return student.state_dict()

    whole = train(tmp_path / "whole", None)
    train(tmp_path / "parts", 3)
    parts = train(tmp_path / "parts", None)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_what_cannot_work_is_refused_first(
    teacher: nn.Module, student: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    answers = answers_of(teacher, tokens, tmp_path, TopK(8))
    with pytest.raises(UsageError, match="a step needs 16 windows"):
        distill(student, answers, Recipe(batch=8, accumulate=2))
    with pytest.raises(UsageError, match="temperature=3"):
        distill(student, answers, Recipe(temperature=3.0))


def test_kept_blocks_are_numbered_anew(teacher: nn.Module) -> None:
    deep, _ = tiny.llama()
    deep = type(deep)(type(deep.config)(**{**deep.config.to_dict(), "num_hidden_layers": 5})).eval()
    student = keep_blocks(deep, (0, 2, 4)).eval()
    assert len(deep.model.layers) == 5 and student.config.num_hidden_layers == 3
    assert [block.self_attn.layer_idx for block in student.model.layers] == [0, 1, 2]
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        whole = student(ids).logits[0].numpy()
    engine = ReferenceEngine(student, "", "student")
    session = engine.session(16)
    engine.forward(session, ids[0, :8].numpy())
    rest = engine.forward(session, ids[0, 8:].numpy(), logits="all")
    assert abs(rest - whole[8:]).max() < 1e-4
    assert torch.equal(
        student.model.layers[1].mlp.up_proj.weight, deep.model.layers[2].mlp.up_proj.weight
    )


def test_layer_types_follow_blocks() -> None:
    model, _ = tiny.gemma3()
    types = model.config.layer_types
    student = keep_blocks(model, (0, len(types) - 1))
    assert student.config.layer_types == [types[0], types[-1]]


def test_blocks_are_spread_evenly() -> None:
    assert spread(30, 2)[0] == 0 and spread(30, 2)[-1] == 29 and len(spread(30, 2)) == 15
    assert spread(4, 2) == (0, 3)
    for step in (0, 1, 30):
        with pytest.raises(UsageError, match="at least two"):
            spread(30, step)
    with pytest.raises(UsageError, match="rising"):
        keep_blocks(tiny.llama()[0], (1, 0))
