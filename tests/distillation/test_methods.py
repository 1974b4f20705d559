"""On-policy and sequence-level distillation, narrower students, and the correction of a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from featherweight.base.errors import UsageError
from featherweight.base.run_folder import RunFolder
from featherweight.base.sampling import Sampling
from featherweight.data.examples import Example, collate
from featherweight.distillation import (
    KeptChannels,
    OnPolicyLoss,
    PromptBatches,
    Recipe,
    correct,
    distill_on_policy,
    distill_sequences,
    keep_channels,
    write_texts,
)
from featherweight.distillation.sequence import text_example
from featherweight.training.losses import ForwardKL, PolicyGradientKL, ReverseKL, TokenLoss

SHORT = Sampling(temperature=1.0, max_tokens=6)
RECIPE = Recipe(steps=6, batch=4, lr=3e-3, warmup=1)
PROMPTS = [[1 + i, 7, 20 + 2 * i] for i in range(8)]


def model_of(seed: int = 0, scale: float = 2.0) -> nn.Module:
    model = tiny.llama(seed)[0].eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def test_on_policy_no_sample_gradient() -> None:
    """The gradient is that of the same texts as data: none goes through the drawing."""
    teacher, student = model_of(), tiny.llama(seed=7)[0].float()
    loss = OnPolicyLoss(teacher, ReverseKL(), sampling=SHORT)
    batch = PromptBatches(PROMPTS, RECIPE)[0]
    sampled = loss(student, batch)
    sampled.total.backward()
    gradients = [p.grad.clone() for p in student.parameters() if p.grad is not None]
    student.zero_grad()
    from featherweight.distillation.on_policy import read_samples
    from featherweight.models.sampling import rollouts

    texts = read_samples(rollouts(student, batch["prompts"], sampling=SHORT, seed=batch["seed"]))
    given = TokenLoss(ReverseKL(), teacher=teacher)(student, texts)
    given.total.backward()
    assert float(sampled.weight) == float(given.weight) == int(texts["loss_mask"].sum())
    again = [p.grad for p in student.parameters() if p.grad is not None]
    for gradient, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(gradient, other)


def test_the_policy_gradient_is_that_of_the_reverse_kl_in_expectation() -> None:
    """Summed over every token that could have been drawn, with its probability."""
    torch.manual_seed(0)
    logits = torch.randn(1, 11, dtype=torch.float32, requires_grad=True)
    log_p = torch.randn(1, 11).log_softmax(-1)
    kl = (logits.softmax(-1) * (logits.log_softmax(-1) - log_p)).sum()
    (expected,) = torch.autograd.grad(kl, logits)
    from featherweight.training.losses.views import Positions, View

    total = torch.zeros(())
    for token in range(11):
        positions = Positions({"input_ids": torch.tensor([[0, token]])})
        rows = PolicyGradientKL().rows(View(logits), View(log_p), positions)
        total = total + logits.softmax(-1)[0, token].detach() * rows.sum()
    (gradient,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(total.detach(), kl.detach())


def test_a_policy_gradient_needs_plain_draws() -> None:
    with pytest.raises(UsageError, match="temperature 1"):
        OnPolicyLoss(model_of(), PolicyGradientKL(), sampling=Sampling(temperature=0.5))


def test_a_student_comes_closer_on_its_own_text() -> None:
    teacher, student = model_of(), tiny.llama(seed=7)[0].float()
    texts = collate([text_example([1, 5], list(range(30 + i, 60 + i))) for i in range(4)])
    judge = TokenLoss(ForwardKL(), teacher=teacher)
    with torch.no_grad():
        before = judge(student, texts).total
    recipe = Recipe(steps=12, batch=4, lr=3e-3, warmup=1)
    steps = list(distill_on_policy(student, teacher, PROMPTS, recipe, sampling=SHORT))
    with torch.no_grad():
        after = judge(student.eval(), texts).total
    assert after < before and not any(step.is_skipped for step in steps)


def test_a_share_of_the_texts_is_that_of_others() -> None:
    examples = [text_example(ids, [9, 9]) for ids in PROMPTS]
    recipe = Recipe(steps=40, batch=2)
    batches = PromptBatches(PROMPTS, recipe, examples, share=0.5)
    own = ["prompts" in batches[index] for index in range(40)]
    assert 10 < sum(own) < 30
    assert own == ["prompts" in batches[index] for index in range(40)]
    with pytest.raises(UsageError, match="share"):
        PromptBatches(PROMPTS, recipe, share=0.5)


def test_a_stopped_on_policy_run_continues_bit_for_bit(tmp_path: Path) -> None:
    teacher = model_of()
    students = []
    for stop in (None, 3):
        folder = tmp_path / f"stop-{stop}"
        for limit in (stop, None) if stop else (None,):
            student = tiny.llama(seed=7)[0].float()
            with RunFolder(folder, {"a": 1}) as run:
                for step in distill_on_policy(
                    student, teacher, PROMPTS, RECIPE, run, sampling=SHORT
                ):
                    if step.number == limit:
                        break
        students.append(student)
    for one, other in zip(*(s.parameters() for s in students), strict=True):
        assert torch.equal(one, other)


def test_texts_of_the_teacher_are_kept_and_learned(tmp_path: Path) -> None:
    teacher, student = model_of(), tiny.llama(seed=7)[0].float()
    with RunFolder(tmp_path / "run", {"a": 1}) as run:
        examples = write_texts(teacher, PROMPTS, run, SHORT, model_id="t")
        assert [e.ids[:3].tolist() for e in examples] == PROMPTS
        assert all(not e.loss_mask[:3].any() and e.loss_mask[3:].all() for e in examples)
        # The second time nobody is asked: this model could not answer.
        again = write_texts(nn.Linear(1, 1), PROMPTS, run, SHORT, model_id="t")
        assert [e.ids.tolist() for e in again] == [e.ids.tolist() for e in examples]
        steps = list(distill_sequences(student, examples, RECIPE, run))
    assert steps[-1].loss < steps[0].loss


def test_padding_of_a_batch_of_examples_counts_nothing() -> None:
    examples = [text_example([1, 2], [3]), text_example([4], [5, 6, 7])]
    batch = collate(examples)
    student = model_of()
    together = TokenLoss(ForwardKL(), teacher=model_of(seed=3))(student, batch)
    alone = [
        TokenLoss(ForwardKL(), teacher=model_of(seed=3))(student, collate([example]))
        for example in examples
    ]
    assert float(together.weight) == 4
    torch.testing.assert_close(together.total, sum(loss.total for loss in alone))


def test_a_teacher_is_corrected() -> None:
    teacher = tiny.llama()[0].float()
    tokens = torch.arange(8 * 17).reshape(8, 17) % 300
    steps = list(correct(teacher, tokens, Recipe(steps=10, batch=4, lr=3e-3, warmup=1)))
    assert steps[-1].loss < steps[0].loss


@pytest.mark.parametrize("name", ["llama", "qwen3", "qwen2", "olmo2", "gemma3"])
def test_all_channels_are_the_model_itself(name: str) -> None:
    model = getattr(tiny, name)()[0].eval()
    same = keep_channels(model, KeptChannels()).eval()
    tokens = torch.arange(1, 9)[None]
    torch.testing.assert_close(same(tokens).logits, model(tokens).logits)


def test_kept_channels_are_the_rows_and_columns_that_they_name(tmp_path: Path) -> None:
    model = tiny.llama()[0].eval()
    config = model.config
    width, inner = range(0, config.hidden_size, 2), range(1, config.intermediate_size, 3)
    student = keep_channels(model, KeptChannels(width, inner, [1]))
    teacher_mlp, mlp = model.model.layers[1].mlp, student.get_submodule("model.layers.1.mlp")
    expected = teacher_mlp.down_proj.weight[list(width)][:, list(inner)]
    assert torch.equal(mlp.down_proj.weight, expected)
    student.save_pretrained(tmp_path)  # type: ignore[operator]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.arange(1, 9)[None]
    torch.testing.assert_close(loaded(tokens).logits, student.eval()(tokens).logits)


def test_removed_inner_channels_and_heads_equal_zeroed_ones() -> None:
    model = tiny.llama()[0].eval().double()
    inner = [list(range(i, model.config.intermediate_size, 2)) for i in (0, 1)]
    student = keep_channels(model, KeptChannels(inner=inner, key_heads=[0])).eval()
    head_width = model.config.hidden_size // model.config.num_attention_heads
    rows = head_width * model.config.num_attention_heads // model.config.num_key_value_heads
    with torch.no_grad():
        for index, block in enumerate(model.model.layers):
            gone = [c for c in range(model.config.intermediate_size) if c not in inner[index]]
            block.mlp.down_proj.weight[:, gone] = 0
            block.self_attn.o_proj.weight[:, rows:] = 0
    tokens = torch.arange(1, 9)[None]
    torch.testing.assert_close(student(tokens).logits, model(tokens).logits)


def test_maps_that_fit_no_model_are_refused() -> None:
    model = tiny.llama()[0]
    for kept in (
        KeptChannels(width=[1, 0]),
        KeptChannels(inner=[10**6]),
        KeptChannels(key_heads=[[0], [0, 1]]),
    ):
        with pytest.raises(UsageError):
            keep_channels(model, kept)
    with pytest.raises(UsageError, match="narrowed"):
        keep_channels(tiny.phi3()[0], KeptChannels())
    with pytest.raises(UsageError, match="depth"):
        KeptChannels.read({"depth": 3})


def test_an_example_without_answer_is_refused() -> None:
    from featherweight.base.errors import BadInput

    with pytest.raises(BadInput):
        Example(torch.tensor([1, 2]), torch.tensor([False, False]))
