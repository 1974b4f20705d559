"""Mistakes that distillation invites and that no other file's tests hold, and the list of all of
them in docs/training.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from featherweight.models.answers import SparseAnswer
from featherweight.models.answers.draws import draw_evenly
from featherweight.ops import divergence

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "training.md"
ROW = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_every_trap_has_its_test() -> None:
    """The tests that the page names exist, and none is named without a file."""
    section = (
        PAGE.read_text(encoding="utf-8").split("## Traps and their tests")[1].split("\n## ")[0]
    )
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 30
    for row in rows:
        names = ROW.findall(row)
        assert names and len(names) == row.count("::"), row
        for file, name in names:
            source = (TESTS / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {name}\(", source, re.MULTILINE), (file, name)


@pytest.fixture
def original() -> Tensor:
    """A teacher's log-probabilities; the first three tokens have 60 %."""
    return torch.tensor([0.3, 0.2, 0.1, 0.15, 0.1, 0.1, 0.05]).log()


def optimum(original: Tensor, k: int, tail_rule: str) -> Tensor:
    """The distribution of a student that minimises the loss, from a uniform one."""
    logits = torch.zeros(1, len(original), requires_grad=True)
    ids = torch.arange(k)[None]
    log_p = original[None, :k]
    log_tail = original[k:].logsumexp(0)[None]
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = divergence.top_k_kl(logits, ids, log_p, log_tail, tail_rule).sum()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    return logits.detach().softmax(-1)[0]


def test_tail_rules_have_the_optima_of_their_formulas(original: Tensor) -> None:
    """`tail` gives p on the k tokens; `zero` gives p/S, over-confident by 1/S; `renormalise` keeps
    the proportions and whatever mass the student began with, and learns nothing from one token.
    """
    p = original.exp()[:3]
    torch.testing.assert_close(optimum(original, 3, "tail")[:3], p, atol=1e-3, rtol=0)
    torch.testing.assert_close(optimum(original, 3, "zero")[:3], p / 0.6, atol=1e-2, rtol=0)
    q = optimum(original, 3, "renormalise")[:3]
    torch.testing.assert_close(q / q.sum(), p / 0.6, atol=1e-3, rtol=0)
    assert abs(float(q.sum()) - 0.6) > 0.1
    torch.testing.assert_close(optimum(original, 1, "renormalise"), torch.full((7,), 1 / 7))


def test_draws_give_the_gradient_of_the_kl(original: Tensor) -> None:
    """The frequencies of drawn tokens, in expectation: "zero" is right for them, because they add
    up to 1.
    """
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(original.exp(), 12 * 4000, True, generator=generator).view(4000, 12)
    counts = torch.nn.functional.one_hot(draws, 7).sum(1)
    ids = torch.arange(7).expand(4000, 7)
    logits = torch.linspace(-1, 1, 7).expand(4000, 7).clone().requires_grad_()
    none = torch.full((4000,), -torch.inf)
    loss = divergence.top_k_kl(logits, ids, (counts / 12).log(), none, "zero").mean()
    (slope,) = torch.autograd.grad(loss, logits)
    expected = logits.detach()[0].softmax(0) - original.exp()
    torch.testing.assert_close(slope.sum(0), expected, atol=0.006, rtol=0)


def test_draws_of_the_tail_give_the_gradient_of_the_kl(original: Tensor) -> None:
    """The mass of the others as one number leaves their proportions to the student. On drawn
    tokens it gives the gradient of the whole KL in expectation.
    """
    p, rows = original.exp(), 4000
    others = p.clone().index_fill_(0, torch.arange(2), 0.0).expand(rows, 7)
    drawn = draw_evenly(others, 3, torch.Generator().manual_seed(0))
    answer = SparseAnswer(
        tokens=torch.zeros(rows + 1, dtype=torch.int64),
        ids=torch.arange(2).expand(rows, 2),
        log_p=original[:2].expand(rows, 2),
        log_tail=others.sum(-1).log(),
        log_target=torch.zeros(rows),
        drawn=drawn,
    )
    assert gradient_error(answer.with_tail_on_draws(), p) < 0.006
    assert gradient_error(answer, p) >= 0.006


def gradient_error(answer: SparseAnswer, p: Tensor) -> float:
    """The largest difference of the mean gradient on the logits from q - p."""
    logits = torch.linspace(-1, 1, 7).expand(len(answer.ids), 7).clone().requires_grad_()
    loss = divergence.top_k_kl(logits, answer.ids, answer.log_p, answer.log_tail).mean()
    (slope,) = torch.autograd.grad(loss, logits)
    return float((slope.sum(0) - (logits.detach()[0].softmax(0) - p)).abs().max())


def test_acceptance_of_drafts_is_one_minus_total_variation(original: Tensor) -> None:
    logits = torch.linspace(-1, 1, 7)[None]
    q = logits.softmax(-1)[0]
    distance = divergence.total_variation(logits, original[None])
    torch.testing.assert_close(1 - distance[0], torch.minimum(original.exp(), q).sum())
