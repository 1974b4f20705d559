"""Losses of language models equal plain twins over whole logits, gradients too; masks, shifts,
temperatures and vocabularies are those that their pages define.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import tiny
import torch
from token_batches import LENGTH, batch, counted, gradients, student, teacher
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from featherweight.base.errors import BadInput, UsageError
from featherweight.ops import divergence
from featherweight.training import Constant, steps
from featherweight.training.losses import (
    CrossEntropy,
    Distillation,
    ForwardKL,
    JensenShannon,
    Positions,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
    TokenLoss,
    TopKKL,
    TotalVariation,
)

DISTILLATIONS = [
    ForwardKL(temperature=2.0),
    ReverseKL(weight=0.5),
    SkewKL(0.2),
    SkewReverseKL(0.2, temperature=1.5),
    JensenShannon(0.3, weight=3.0, temperature=2.0),
    TotalVariation(),
]


def plain_logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    output = model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    )
    return torch.stack([output.logits[b, t] for b, t in counted(inputs)])


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [tiny.llama, tiny.qwen3, tiny.gemma2])
def test_cross_entropy_equals_torch(make: Any) -> None:
    """Tied and untied heads, and one with a cap on its logits."""
    model, inputs = make()[0], batch()
    loss = TokenLoss(CrossEntropy())(model, inputs)
    targets = torch.stack([inputs["input_ids"][b, t + 1] for b, t in counted(inputs)])
    expected = functional.cross_entropy(plain_logits(model, inputs), targets, reduction="sum")
    assert loss.weight == len(targets)
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(loss.parts["cross_entropy"], expected.detach())
    assert_same(gradients(model, loss.total), gradients(model, expected))


@pytest.mark.parametrize("term", DISTILLATIONS, ids=repr)
def test_kd_mask_and_shift(term: Distillation) -> None:
    """Every divergence is over the same predictions as cross-entropy, shifted once, padding and
    prompts left out; per prediction, and T^2 on it.
    """
    model, inputs = student(), batch()
    original = teacher()
    loss = TokenLoss(CrossEntropy(weight=0.3), term, teacher=original)(model, inputs)
    with torch.no_grad():
        target = plain_logits(original, inputs)
    logits = plain_logits(model, inputs)
    labels = torch.stack([inputs["input_ids"][b, t + 1] for b, t in counted(inputs)])
    rows = term.divergence(logits, target)
    total = term.weight * term.temperature**2 * rows.sum()
    total = total + 0.3 * functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(loss.total, total, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss.parts[term.name], rows.sum().detach(), rtol=1e-4, atol=1e-5)
    assert_same(gradients(model, loss.total), gradients(model, total))


def test_temperature_gradient_scale() -> None:
    """For nearly equal distributions the gradient does not depend on T; cross-entropy has no T."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 8, generator=generator)
    near = hidden + 1e-3 * torch.randn(4, 8, generator=generator)
    norms = []
    for temperature in (10.0, 40.0):
        term = ForwardKL(temperature=temperature)
        x = near.clone().requires_grad_()
        (term.factor * term.divergence(x, hidden)).sum().backward()
        assert x.grad is not None
        norms.append(float(x.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.02)
    assert CrossEntropy(weight=2.0).factor == 2.0


def test_teacher_equals_student_gives_zero() -> None:
    """In evaluation mode, without a graph, through the same kernels: exactly 0, and no gradient."""
    model = student()
    original = copy.deepcopy(model)
    original.train()
    for term in (ForwardKL(), ReverseKL(temperature=3.0), TotalVariation()):
        loss = TokenLoss(term, teacher=original)
        result = loss(model, batch())
        assert result.total.item() == 0
        if not isinstance(term, TotalVariation):
            assert all(g.abs().max() < 1e-4 for g in gradients(model, result.total))
        assert all(p.grad is None for p in original.parameters())
        assert original.training
        assert loss.state_dict() == {}
        assert not any(p is q for p in loss.parameters() for q in original.parameters())


class Dropped(nn.Module):
    """A toy model with dropout, which must not act in the teacher."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 8)
        self.dropout = nn.Dropout(0.5)
        self.lm_head = nn.Linear(8, 11)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        from types import SimpleNamespace

        return SimpleNamespace(logits=self.lm_head(self.dropout(self.embed(input_ids))))


def test_the_teacher_is_in_evaluation_mode() -> None:
    ids = torch.randint(0, 11, (2, 6))
    original = Dropped().train()
    losses = [TokenLoss(ForwardKL(), teacher=original)(Dropped().eval(), ids) for _ in range(2)]
    assert [loss.total.item() for loss in losses] == [0.0, 0.0]


@pytest.mark.parametrize("cut", [[4], [1, 3], [1, 1, 1, 1]])
def test_loss_invariant_to_microbatching(cut: list[int]) -> None:
    """Sequences have different numbers of tokens that count: the mean is over tokens, not over
    sequences or micro-batches, nor over T or V.
    """
    inputs = batch(4)
    parts = zip(*(inputs[key].split(cut) for key in inputs), strict=True)
    batches = [dict(zip(inputs, part, strict=True)) for part in parts]
    model, original = student(), teacher()
    before = [p.detach().clone() for p in model.parameters()]
    loss = TokenLoss(CrossEntropy(), ForwardKL(), teacher=original)
    optimizer = SGD(model.parameters(), lr=1.0)
    (step,) = steps(
        model, batches, loss, optimizer, Constant(1), accumulate=len(cut), clip=None, bf16=False
    )
    model_again = student()
    result = loss(model_again, inputs)
    result.total.backward()
    pairs = zip(model.parameters(), model_again.parameters(), before, strict=True)
    for p, q, start in pairs:
        assert q.grad is not None
        torch.testing.assert_close(
            start - p.detach(), q.grad / len(counted(inputs)), rtol=1e-3, atol=1e-6
        )
    assert step.units_seen == len(counted(inputs))
    assert step.loss == pytest.approx(result.total.item() / len(counted(inputs)), rel=1e-5)


def cached(inputs: dict[str, Tensor], k: int, temperature: float = 1.0) -> dict[str, Any]:
    with torch.no_grad():
        logits = teacher()(**{k: v for k, v in inputs.items() if k != "loss_mask"}).logits
    log_p, ids = divergence.log_softmax(logits, temperature).topk(k)
    tail = (1 - log_p.exp().sum(-1)).clamp_min(1e-30).log()
    return {
        **inputs,
        "top_ids": ids,
        "top_log_p": log_p.half(),
        "log_tail": tail,
        "temperature": temperature,
    }


def test_cached_answers_come_close_to_the_teacher() -> None:
    model, inputs = student(), batch()
    full = TokenLoss(ForwardKL(), teacher=teacher())(model, inputs).total.item()
    sums = []
    for k in (2, 20, 290):
        loss = TokenLoss(TopKKL())(model, cached(inputs, k))
        assert loss.weight == len(counted(inputs))
        sums.append(loss.total.item())
    assert sums == sorted(sums)
    assert sums[-1] == pytest.approx(full, rel=0.02)
    zero = TokenLoss(TopKKL(tail_rule="zero"))(model, cached(inputs, 2)).total.item()
    assert zero != pytest.approx(sums[0], rel=0.01)


def test_cached_temperature_refused() -> None:
    inputs = cached(batch(), 4, temperature=2.0)
    TokenLoss(TopKKL(temperature=2.0))(student(), inputs)
    with pytest.raises(BadInput, match="answers are those at temperature 2.0, the loss is at 1.0"):
        TokenLoss(TopKKL())(student(), inputs)
    with pytest.raises(BadInput, match="no top_ids, top_log_p, log_tail, temperature"):
        TokenLoss(TopKKL())(student(), batch())


def test_whole_distributions_may_be_in_the_batch() -> None:
    model, inputs = student(), batch()
    expected = TokenLoss(ForwardKL(), teacher=teacher())(model, inputs).total
    with torch.no_grad():
        logits = teacher()(**{k: v for k, v in inputs.items() if k != "loss_mask"}).logits
    actual = TokenLoss(ForwardKL())(model, inputs | {"teacher_logits": logits}).total
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="forward_kl needs a teacher, or teacher_logits"):
        TokenLoss(ForwardKL())(model, inputs)


def padded_teacher() -> Any:
    """The teacher with twenty more rows in its table, as padded vocabularies have."""
    model = teacher()
    model.resize_token_embeddings(320, mean_resizing=False)
    return model


def test_vocab_truncation_asserts_ids() -> None:
    model, inputs = student(), batch()
    with pytest.raises(UsageError, match="student has 300 logits, the teacher 320"):
        TokenLoss(ForwardKL(), teacher=padded_teacher())(model, inputs)
    expected = TokenLoss(ForwardKL(), teacher=teacher())(model, inputs).total
    loss = TokenLoss(ForwardKL(), teacher=padded_teacher(), vocabulary=300)
    torch.testing.assert_close(loss(model, inputs).total, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="only 300 logits"):
        TokenLoss(ForwardKL(), teacher=padded_teacher(), vocabulary=310)(model, inputs)
    with pytest.raises(BadInput, match="the vocabulary ends at 10"):
        TokenLoss(ForwardKL(), teacher=padded_teacher(), vocabulary=10)(model, inputs)


def test_a_teacher_that_is_not_finite_is_named() -> None:
    original = teacher()
    with torch.no_grad():
        original.model.layers[1].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(BadInput, match="the teacher gives numbers that are not finite"):
        TokenLoss(ForwardKL(), teacher=original)(student(), batch())


def test_a_head_that_does_more_is_refused() -> None:
    model = student()
    forward = model.forward

    def louder(**inputs: Any) -> Any:
        output = forward(**inputs)
        output.logits = output.logits * 2
        return output

    model.forward = louder
    with pytest.raises(UsageError, match="not the product of lm_head"):
        TokenLoss(CrossEntropy())(model, batch())


def test_the_model_is_left_as_it_was() -> None:
    model = student()
    TokenLoss(CrossEntropy(), ForwardKL(), teacher=teacher())(model, batch())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_norms_of_the_gradients_of_terms() -> None:
    model, inputs = student(), batch()
    loss = TokenLoss(CrossEntropy(), ForwardKL(weight=7.0), teacher=teacher())
    norms = loss.gradient_norms(model, inputs)
    for name, term in (("cross_entropy", CrossEntropy()), ("forward_kl", ForwardKL(weight=7.0))):
        alone = TokenLoss(term, teacher=teacher())(model, inputs)
        slopes = gradients(model, alone.total / alone.weight)
        expected = torch.cat([slope.flatten() for slope in slopes]).norm()
        assert norms[name] == pytest.approx(float(expected), rel=1e-4)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="beta=1 must lie between 0 and 1; at 0 use ForwardKL"):
        JensenShannon(1)
    with pytest.raises(UsageError, match="alpha=0"):
        SkewKL(0)
    with pytest.raises(UsageError, match="temperature=0"):
        ForwardKL(temperature=0)
    with pytest.raises(UsageError, match="tail_rule='drop'"):
        TopKKL("drop")
    with pytest.raises(UsageError, match="at least one term"):
        TokenLoss()


def test_the_text_of_a_loss_has_its_settings() -> None:
    loss = TokenLoss(CrossEntropy(), SkewKL(0.2, weight=3.0), SkewKL(0.3), teacher=teacher())
    for words in ("skew_kl_1", "alpha=0.2", "weight=3.0", "alpha=0.3", "LlamaForCausalLM"):
        assert words in repr(loss)


def test_nothing_counts_in_a_batch_of_prompts() -> None:
    inputs = batch()
    inputs["loss_mask"] = torch.zeros_like(inputs["loss_mask"])
    model = student()
    loss = TokenLoss(CrossEntropy(), ForwardKL(), teacher=teacher())(model, inputs)
    assert loss.weight == 0
    assert all(not g.any() for g in gradients(model, loss.total))
    assert len(Positions({"input_ids": inputs["input_ids"]})) == 3 * (LENGTH - 1)
