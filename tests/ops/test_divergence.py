"""Every divergence equals a slow twin, its gradient too, and the chunked form equals the plain
one.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from featherweight.base.errors import UsageError
from featherweight.ops import divergence
from featherweight.ops.divergence import Projection, row_losses

ROWS, VOCABULARY, K = 5, 7, 3


def softmax(row: list[float], temperature: float) -> list[float]:
    weights = [math.exp(z / temperature) for z in row]
    return [weight / sum(weights) for weight in weights]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def mix(a: list[float], b: list[float], share: float) -> list[float]:
    return [share * x + (1 - share) * y for x, y in zip(a, b, strict=True)]


def tv(p: list[float], q: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2


def jsd(p: list[float], q: list[float], beta: float) -> float:
    m = mix(p, q, beta)
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


TWINS: dict[str, tuple[Any, Any]] = {
    "forward_kl": (divergence.forward_kl, kl),
    "reverse_kl": (divergence.reverse_kl, lambda p, q: kl(q, p)),
    "skew_kl": (partial(divergence.skew_kl, alpha=0.1), lambda p, q: kl(p, mix(p, q, 0.1))),
    "skew_reverse_kl": (
        partial(divergence.skew_reverse_kl, alpha=0.3),
        lambda p, q: kl(q, mix(q, p, 0.3)),
    ),
    "jensen_shannon": (
        partial(divergence.jensen_shannon, beta=0.3),
        lambda p, q: jsd(p, q, 0.3),
    ),
    "total_variation": (divergence.total_variation, tv),
}


def logits(seed: int, rows: int = ROWS, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, VOCABULARY, dtype=dtype, generator=generator)


def top_k(teacher: Tensor, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """ids, log p and log(1 - S) of the k most likely tokens."""
    log_p = divergence.log_softmax(teacher, temperature)
    values, ids = log_p.topk(k)
    others = log_p.scatter(-1, ids, -math.inf).logsumexp(-1)
    return ids, values, others


def top_k_twin(p: list[float], q: list[float], ids: list[int], tail_rule: str) -> float:
    s, r = sum(p[i] for i in ids), sum(q[i] for i in ids)
    if tail_rule == "renormalise":
        return sum(p[i] / s * math.log((p[i] / s) / (q[i] / r)) for i in ids)
    terms = sum(p[i] * math.log(p[i] / q[i]) for i in ids)
    return terms + (1 - s) * math.log((1 - s) / (1 - r)) if tail_rule == "tail" else terms


def numerical_gradient(loss: Any, x: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of the sum of `loss`."""
    gradient = torch.empty_like(x)
    for index in range(x.numel()):
        shift = torch.zeros_like(x).view(-1)
        shift[index] = step
        shift = shift.view_as(x)
        difference = loss(x + shift).sum() - loss(x - shift).sum()
        gradient.view(-1)[index] = difference / (2 * step)
    return gradient


def gradient_of(loss: Any, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    loss(leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergences_equal_their_twins(name: str, temperature: float) -> None:
    rows, twin = TWINS[name]
    student, teacher = logits(0), logits(1)
    expected = [
        twin(softmax(t, temperature), softmax(s, temperature))
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    actual = rows(student, teacher, temperature=temperature)
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))

    def loss(x: Tensor) -> Tensor:
        return rows(x, teacher, temperature=temperature)

    gradient = gradient_of(loss, student)
    torch.testing.assert_close(gradient, numerical_gradient(loss, student), rtol=1e-5, atol=1e-8)


def test_cross_entropy_equals_its_twin() -> None:
    student, targets = logits(0), torch.tensor([0, 6, 3, 3, 1])
    expected = [
        -math.log(softmax(row, 1)[t])
        for row, t in zip(student.tolist(), targets.tolist(), strict=True)
    ]
    actual = divergence.cross_entropy(student, targets)
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))
    gradient = gradient_of(lambda x: divergence.cross_entropy(x, targets), student)
    closed_form = student.softmax(-1) - torch.nn.functional.one_hot(targets, VOCABULARY)
    torch.testing.assert_close(gradient, closed_form)


@pytest.mark.parametrize("tail_rule", divergence.TAIL_RULES)
@pytest.mark.parametrize("k", [1, K])
def test_top_k_equals_its_twin(tail_rule: str, k: int) -> None:
    student, teacher = logits(0), logits(1)
    ids, log_p, log_tail = top_k(teacher, k, 1.5)

    def loss(x: Tensor) -> Tensor:
        return divergence.top_k_kl(x, ids, log_p, log_tail, tail_rule, temperature=1.5)

    expected = [
        top_k_twin(softmax(t, 1.5), softmax(s, 1.5), i, tail_rule)
        for s, t, i in zip(student.tolist(), teacher.tolist(), ids.tolist(), strict=True)
    ]
    torch.testing.assert_close(loss(student), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(
        gradient_of(loss, student), numerical_gradient(loss, student), rtol=1e-5, atol=1e-8
    )


def test_the_gradient_of_the_tail_bucket_is_its_formula() -> None:
    student, teacher = logits(0), logits(1)
    ids, log_p, log_tail = top_k(teacher, K)
    p, q = teacher.softmax(-1), student.softmax(-1)
    in_k = torch.zeros_like(p, dtype=torch.bool).scatter(-1, ids, True)
    s, r = (p * in_k).sum(-1, keepdim=True), (q * in_k).sum(-1, keepdim=True)
    expected = torch.where(in_k, q - p, q * (s - r) / (1 - r))
    actual = gradient_of(lambda x: divergence.top_k_kl(x, ids, log_p, log_tail), student)
    torch.testing.assert_close(actual, expected)


def test_tail_full_k_equals_kl() -> None:
    student, teacher = logits(0), logits(1)
    ids, log_p, log_tail = top_k(teacher, VOCABULARY)
    full = divergence.forward_kl(student, teacher)
    torch.testing.assert_close(divergence.top_k_kl(student, ids, log_p, log_tail), full)


def test_tail_is_never_more_than_kl() -> None:
    student, teacher = logits(0), logits(1)
    for k in range(1, VOCABULARY):
        tail = divergence.top_k_kl(student, *top_k(teacher, k))
        assert (tail <= divergence.forward_kl(student, teacher) + 1e-12).all()
        assert (tail >= 0).all()


@pytest.mark.parametrize("peak", [30.0, 200.0])
def test_tail_finite(peak: float) -> None:
    """R, S or both round to 1: log(1 - R) stays finite, and an empty tail counts nothing."""
    student = logits(0, dtype=torch.float32)
    student[:, 2] = peak
    teacher = logits(1, dtype=torch.float32)
    ids, log_p, log_tail = top_k(teacher, 1)
    ids.fill_(2)
    for tail in (log_tail, torch.full_like(log_tail, -math.inf)):
        loss = divergence.top_k_kl(student, ids, log_p, tail)
        gradient = gradient_of(
            lambda x, tail=tail: divergence.top_k_kl(x, ids, log_p, tail), student
        )
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


def test_unused_places_count_nothing() -> None:
    student = logits(0)
    ids, log_p, _ = top_k(logits(1), 2)
    padded = torch.cat([ids, torch.zeros_like(ids[:, :1])], -1)
    unused = torch.cat([log_p, torch.full_like(log_p[:, :1], -math.inf)], -1)
    none = torch.full_like(log_p[:, 0], -math.inf)
    torch.testing.assert_close(
        divergence.top_k_kl(student, padded, unused, none, "zero"),
        divergence.top_k_kl(student, ids, log_p, none, "zero"),
    )
    gradient = gradient_of(lambda x: divergence.top_k_kl(x, padded, unused, none, "zero"), student)
    assert gradient.isfinite().all()


def test_jsd_limits_named() -> None:
    student, teacher = logits(0), logits(1)
    small = 1e-7
    torch.testing.assert_close(
        divergence.jensen_shannon(student, teacher, small) / small,
        divergence.forward_kl(student, teacher),
        rtol=1e-4,
        atol=1e-6,
    )
    torch.testing.assert_close(
        divergence.jensen_shannon(student, teacher, 1 - small) / small,
        divergence.reverse_kl(student, teacher),
        rtol=1e-4,
        atol=1e-6,
    )
    with pytest.raises(UsageError, match="at 0 use forward_kl, at 1 reverse_kl"):
        divergence.jensen_shannon(student, teacher, 0)
    for rows in (divergence.skew_kl, divergence.skew_reverse_kl):
        with pytest.raises(UsageError, match="alpha=1 must lie between 0 and 1"):
            rows(student, teacher, 1)


@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_distribution_is_at_no_distance_from_itself(name: str) -> None:
    x = logits(0, dtype=torch.float32)
    loss = TWINS[name][0](x, x.clone())
    if name in ("forward_kl", "reverse_kl", "total_variation"):
        assert loss.tolist() == [0.0] * ROWS
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-6)


def test_half_precision_logits_are_computed_in_float32() -> None:
    student, teacher = logits(0).bfloat16(), logits(1).bfloat16()
    loss = divergence.forward_kl(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss.double(), divergence.forward_kl(student.double(), teacher.double())
    )


ROW_LOSSES = [pair[0] for pair in TWINS.values()]


@pytest.mark.parametrize("rows", ROW_LOSSES)
@pytest.mark.parametrize("chunk", [1, 3, 100, None])
@pytest.mark.parametrize("settings", [{}, {"scale": 0.5, "softcap": 3.0}])
def test_chunks_equal_the_plain_form(
    rows: Any, chunk: int | None, settings: dict[str, float]
) -> None:
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    hidden, weight, bias = random(ROWS, 4), random(VOCABULARY, 4), random(VOCABULARY)
    teacher = Projection(random(ROWS, 6), random(VOCABULARY, 6))
    upstream = random(ROWS)

    def plain(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        logits = (h @ w.T + b) * settings.get("scale", 1.0)
        cap = settings.get("softcap")
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        return rows(logits, teacher.hidden @ teacher.weight.T)

    def chunked(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return row_losses(rows, Projection(h, w, b, **settings), teacher, chunk=chunk)

    results = []
    for loss in (plain, chunked):
        leaves = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
        values = loss(*leaves)
        values.backward(upstream)
        results.append([values.detach(), *(leaf.grad for leaf in leaves)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_chunks_of_logits_and_several_targets() -> None:
    student, teacher = logits(0), logits(1)
    targets = top_k(teacher, K)
    gradients = [
        gradient_of(loss, student)
        for loss in (
            lambda x: divergence.top_k_kl(x, *targets),
            lambda x: row_losses(divergence.top_k_kl, x, *targets, chunk=2),
        )
    ]
    torch.testing.assert_close(gradients[1], gradients[0])


def test_no_positions_give_no_losses_and_zero_gradients() -> None:
    hidden = torch.zeros(0, 4, requires_grad=True)
    weight = torch.ones(VOCABULARY, 4, requires_grad=True)
    targets = torch.zeros(0, dtype=torch.long)
    losses = row_losses(divergence.cross_entropy, Projection(hidden, weight), targets)
    losses.sum().backward()
    assert losses.shape == (0,)
    assert weight.grad is not None
    assert weight.grad.abs().sum() == 0


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
def test_chunks_under_autocast_equal_torch(weight_dtype: torch.dtype) -> None:
    hidden = torch.randn(ROWS, 4).to(weight_dtype)
    weight = torch.randn(VOCABULARY, 4).to(weight_dtype)
    targets = torch.tensor([0, 6, 3, 3, 1])
    results = []
    for is_chunked in (False, True):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            if is_chunked:
                losses = row_losses(divergence.cross_entropy, Projection(h, w), targets, chunk=2)
            else:
                losses = divergence.cross_entropy(torch.nn.functional.linear(h, w), targets)
        losses.sum().backward()
        results.append((losses.detach(), h.grad, w.grad))
    for expected, actual in zip(*results, strict=True):
        assert actual.dtype == expected.dtype
        torch.testing.assert_close(actual, expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(results[1][0], results[0][0])


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden = torch.randn(ROWS, 4, requires_grad=True)
    weight = torch.randn(VOCABULARY, 4)
    targets = torch.zeros(ROWS, dtype=torch.long)
    row_losses(divergence.cross_entropy, Projection(hidden, weight), targets).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_wrong_targets_are_refused() -> None:
    with pytest.raises(UsageError, match="5 positions of the student, 4 of a target"):
        row_losses(divergence.forward_kl, logits(0), logits(1, rows=4))
    with pytest.raises(UsageError, match="no_grad"):
        row_losses(divergence.forward_kl, logits(0), logits(1).requires_grad_())
    with pytest.raises(UsageError, match="tail_rule='drop'"):
        divergence.top_k_kl(logits(0), *top_k(logits(1), K), "drop")
