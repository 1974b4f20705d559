"""The loss between models of different tokenizers: a slow twin over outcomes, its limits, its
invariances, and that it teaches.
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import tokenizer_pairs as pairs
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim import SGD, AdamW

from featherweight.base.errors import BadInput, UsageError
from featherweight.distillation import (
    AlignedBatches,
    CrossTokenizerLoss,
    TokenizerMatch,
    aligned_windows,
    match_tokenizers,
)
from featherweight.distillation.alignment import collate
from featherweight.distillation.group_divergence import Split, join, outcome_jsd
from featherweight.ops import divergence
from featherweight.training import Constant, Cosine, steps
from featherweight.training.losses import JensenShannon, TokenLoss

TEXTS = [pairs.TEXT, "the theatre", "Whether the weather is there", "another 37 windows"]
BETA = 0.3


def jsd(p: dict[Any, Tensor], q: dict[Any, Tensor]) -> Tensor:
    """Over outcomes, as the formula says."""
    assert p.keys() == q.keys()
    for side in (p, q):
        assert float(sum(x.detach() for x in side.values())) == pytest.approx(1, abs=1e-5)
    total = torch.zeros(())
    for outcome in p:
        a, b = p[outcome], q[outcome]
        m = BETA * a + (1 - BETA) * b
        if a.detach() > 0:
            total = total + BETA * a * (a / m).log()
        if b.detach() > 0:
            total = total + (1 - BETA) * b * (b / m).log()
    return total


def distributions(model: nn.Module, side: dict[str, Tensor], row: int) -> list[Tensor]:
    """The probabilities of the token at each place, of one text; None at the first."""
    count = int(side["attention_mask"][row].sum())
    logits = model(input_ids=side["input_ids"][row : row + 1, :count]).logits[0].double()
    return [torch.zeros(0), *logits.softmax(-1)[:-1]]


def twin(
    model: nn.Module, teacher: nn.Module, match: TokenizerMatch, batch: dict[str, Any]
) -> dict[str, list[Tensor]]:
    """Text by text, group by group, outcome by outcome, over whole probabilities."""
    student_of = dict(zip(match.teacher_ids.tolist(), match.student_ids.tolist(), strict=True))
    parts: dict[str, list[Tensor]] = {"exact": [], "uld": [], "cross_entropy": []}
    for row in range(len(batch["student"]["groups"])):
        with torch.no_grad():
            before = distributions(teacher, batch["teacher"], row)
        after = distributions(model, batch["student"], row)
        ids = [batch[side]["input_ids"][row].tolist() for side in ("teacher", "student")]
        groups = [batch[side]["groups"][row].tolist() for side in ("teacher", "student")]
        for number in sorted(set(groups[0]) - {-1}):
            places = [[i for i, g in enumerate(side) if g == number] for side in groups]
            p, q = before[places[0][0]], after[places[1][0]]
            a, b = ids[0][places[0][0]], ids[1][places[1][0]]
            text_p = torch.stack([before[i][ids[0][i]] for i in places[0]]).prod()
            text_q = torch.stack([after[i][ids[1][i]] for i in places[1]]).prod()
            pairs_ = {v: w for v, w in student_of.items() if v != a and w != b}
            outcomes_p = {v: p[v] for v in pairs_} | {"text": text_p}
            outcomes_q = {v: q[w] for v, w in pairs_.items()} | {"text": text_q}
            outcomes_p["else"] = (
                sum(p[v] for v in range(len(p)) if v not in pairs_ and v != a) + p[a] - text_p
            )
            outcomes_q["else"] = (
                sum(q[w] for w in range(len(q)) if w not in pairs_.values() and w != b)
                + q[b]
                - text_q
            )
            parts["exact"].append(jsd(outcomes_p, outcomes_q))
            rest_p = sorted(
                (p[v] for v in range(len(p)) if v not in student_of and v != a),
                key=lambda x: x.item(),
            )
            matched = set(student_of.values())
            rest_q = sorted(
                (q[w] for w in range(len(q)) if w not in matched and w != b), key=lambda x: x.item()
            )
            zero = torch.zeros((), dtype=torch.float64)
            uld = zero
            for i in range(max(len(rest_p), len(rest_q))):
                x = rest_p[-1 - i] if i < len(rest_p) else zero
                y = rest_q[-1 - i] if i < len(rest_q) else zero
                uld = uld + (x - y).abs()
            parts["uld"].append(uld)
            parts["cross_entropy"].append(-text_q.log())
    return parts


def gradient(model: nn.Module, total: Tensor) -> Tensor:
    slopes = torch.autograd.grad(total, list(model.parameters()), retain_graph=True)
    return torch.cat([slope.flatten() for slope in slopes])


def example(
    teacher: Any, student: Any, **settings: Any
) -> tuple[CrossTokenizerLoss, nn.Module, dict[str, Any]]:
    """The loss, a student, and a batch of four texts."""
    match = match_tokenizers(teacher, student)
    texts = aligned_windows(match, TEXTS, 120, has_end=True)
    loss = CrossTokenizerLoss(
        pairs.model(teacher, 1), match, **{"beta": BETA, "cross_entropy": 0.0, **settings}
    )
    return loss, pairs.model(student, 2), collate(texts)


@pytest.mark.parametrize(("teacher", "student"), pairs.COMBINATIONS)
def test_the_loss_equals_a_slow_twin(teacher: Any, student: Any) -> None:
    loss, model, batch = example(teacher(), student(), uld=0.7, cross_entropy=0.2)
    batch = {name: {key: rows[1:3] for key, rows in side.items()} for name, side in batch.items()}
    expected = twin(model, loss._teacher[0], loss.match, batch)
    rows = loss.rows(model, batch)
    for name, numbers in expected.items():
        torch.testing.assert_close(
            rows[name].double(), torch.stack(numbers), rtol=2e-4, atol=2e-6, msg=name
        )
        if name == "uld" and len(loss.match.student_ids) == len(loss.match.student):
            continue  # every token of the student is matched, so the teacher's rest is constant
        torch.testing.assert_close(
            gradient(model, rows[name].sum()),
            gradient(model, torch.stack(numbers).sum()).float(),
            rtol=1e-3,
            atol=1e-4,
        )
    result = loss(model, batch)
    total = sum(
        loss.weights[name] * torch.stack(numbers).sum() for name, numbers in expected.items()
    )
    torch.testing.assert_close(result.total.double(), total, rtol=1e-4, atol=1e-5)
    assert result.weight == len(expected["exact"])
    assert all(p.grad is None for p in loss._teacher[0].parameters())


def test_one_tokenizer_gives_the_plain_jsd() -> None:
    """Every group is one matched token: the value and the gradient of `TokenLoss`."""
    loss, model, batch = example(pairs.fine(), pairs.fine(), uld=1.0)
    inputs = {k: batch["student"][k] for k in ("input_ids", "attention_mask")}
    plain = TokenLoss(JensenShannon(BETA), teacher=loss._teacher[0])(model, inputs)
    result = loss(model, batch)
    assert result.weight == plain.weight
    torch.testing.assert_close(result.total, plain.total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        gradient(model, result.total), gradient(model, plain.total), rtol=1e-4, atol=1e-5
    )
    assert result.parts["uld"] == 0


def test_a_permuted_copy_of_the_teacher_has_no_loss() -> None:
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    student_tokenizer = pairs.permuted(pairs.fine(), order.tolist())
    loss, model, batch = example(pairs.fine(), student_tokenizer, uld=1.0)
    assert loss.match.kind == "aligned"
    copy = pairs.model(pairs.fine(), 1)
    table = copy.model.embed_tokens.weight.data
    table[order] = table.clone()
    result = loss(copy, batch)
    assert 0 <= result.total.item() < 1e-5
    assert gradient(copy, result.total).abs().max() < 1e-4
    assert loss(model, batch).total.item() > 1


@pytest.mark.parametrize("cut", [[4], [1, 3], [1, 1, 1, 1]])
def test_loss_invariant_to_microbatching(cut: list[int]) -> None:
    """Texts have different numbers of groups: the mean is over groups."""
    loss, model, batch = example(pairs.fine(), pairs.coarse(), cross_entropy=0.1)
    expected = loss(model, batch)
    slope = gradient(model, expected.total) / expected.weight
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    texts = aligned_windows(loss.match, TEXTS, 120, has_end=True)
    starts = [sum(cut[:i]) for i in range(len(cut))]
    batches = [collate(texts[i : i + n]) for i, n in zip(starts, cut, strict=True)]
    optimizer = SGD(model.parameters(), lr=1.0)
    (step,) = steps(
        model, batches, loss, optimizer, Constant(1), accumulate=len(cut), clip=None, bf16=False
    )
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(before - after, slope, rtol=1e-3, atol=1e-6)
    assert step.loss == pytest.approx(expected.total.item() / expected.weight, rel=1e-5)


def probabilities(rows: int, size: int, seed: int) -> Tensor:
    return (
        torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
        .mul(2)
        .log_softmax(-1)
    )


def split_rows(
    log_q: Tensor, log_p: Tensor, first_q: Tensor, first_p: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Eight matched ids (i with i + 2), one-token groups."""
    matched = torch.arange(8)
    split = Split.of(matched, matched + 2, log_p.shape[1], log_q.shape[1], 0.5)
    zeros = torch.zeros(len(log_q))
    return join(split(log_q, log_p, first_q, first_p), zeros, zeros, 0.5)


def test_uld_is_invariant_to_permutation() -> None:
    log_q, log_p = probabilities(5, 20, 0), probabilities(5, 15, 1)
    firsts = torch.tensor([2, 3, 4, 5, 6]), torch.tensor([0, 1, 2, 3, 4])
    exact, uld, _ = split_rows(log_q, log_p, *firsts)
    order = torch.cat([torch.tensor([1, 0]), torch.arange(2, 10), torch.randperm(10) + 10])
    exact_again, uld_again, _ = split_rows(log_q[:, order], log_p, *firsts)
    torch.testing.assert_close(uld, uld_again)
    torch.testing.assert_close(exact, exact_again)
    assert (uld > 0.01).all()


def test_merges_give_the_product() -> None:
    """ "there" against "the" + "re": what counts is the probability of the text. The exact part is
    0 when the products and the other tokens agree, and lies between the divergence of {the text,
    not the text} and that of everything.
    """
    log_q, log_p = probabilities(3, 20, 0), probabilities(3, 15, 1)
    log_r_p = torch.tensor([-0.5, -2.0, -0.01])
    split = Split.of(torch.arange(8), torch.arange(8) + 2, 15, 20, 0.5)
    first_q, first_p = torch.tensor([12, 3, 5]), torch.tensor([0, 9, 2])
    parts = split(log_q, log_p, first_q, first_p)
    exact, _, log_text = join(parts, torch.zeros(3), log_r_p, 0.5)
    text_p = log_p.gather(1, first_p[:, None])[:, 0] + log_r_p
    torch.testing.assert_close(log_text, log_q.gather(1, first_q[:, None])[:, 0])
    two = outcome_jsd(text_p, log_text, 0.5) + outcome_jsd(
        (-torch.expm1(text_p)).log(), (-torch.expm1(log_text)).log(), 0.5
    )
    assert (exact >= two - 1e-6).all()
    assert (two > 0).all()
    # A student that says the text with one token and everything else as the teacher does.
    q = torch.zeros(3, 20)
    for row in range(3):
        for v in range(8):
            q[row, v + 2] = log_p[row, v].exp() if v != first_p[row] else 0
        q[row, first_q[row]] = text_p[row].exp()
        q[row, 19] = 1 - q[row].sum()
    equal = split((q + 1e-12).log(), log_p, first_q, first_p)
    exact, _, _ = join(equal[:1], torch.zeros(1), log_r_p[:1], 0.5)
    assert exact.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("log_r", [0.0, -1e-9, -90.0, -1e5])
def test_certain_and_impossible_tokens_give_finite_gradients(log_r: float) -> None:
    logits = torch.tensor([[90.0, -90.0, 0.0, 0.0], [-90.0, 90.0, 0.0, 0.0]]).requires_grad_()
    continuation = torch.full((2,), log_r).requires_grad_()
    for matched in (torch.arange(4), torch.tensor([0, 2]), torch.arange(0)):
        split = Split.of(matched, matched, 4, 4, 0.5)
        parts = split(logits, logits.detach().flip(0), torch.tensor([0, 0]), torch.tensor([1, 0]))
        exact, uld, _ = join(parts, continuation, torch.zeros(2), 0.5)
        assert (
            exact.isfinite().all()
            and (exact >= -1e-6).all()
            and (exact <= math.log(2) + 1e-5).all()
        )
        for slope in torch.autograd.grad((exact + uld).sum(), [logits, continuation]):
            assert slope.isfinite().all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One position at a time, both vocabularies counted."""
    loss, model, batch = example(pairs.coarse(), pairs.single_bytes())
    expected = loss(model, batch)
    slope = gradient(model, expected.total)
    sizes: list[int] = []
    call = Split.__call__

    def spy(self: Split, student: Tensor, *targets: Tensor) -> Tensor:
        sizes.append(len(student))
        return call(self, student, *targets)

    monkeypatch.setattr(Split, "__call__", spy)
    monkeypatch.setattr(divergence.chunked, "CHUNK_BYTES", 4 * (325 + 259) * 3)
    result = loss(model, batch)
    torch.testing.assert_close(result.total, expected.total)
    torch.testing.assert_close(gradient(model, result.total), slope, rtol=1e-4, atol=1e-5)
    assert max(sizes) == 1 and len(sizes) == 2 * result.weight


def test_padded_logits_are_truncated() -> None:
    """Rows of the table that no token has: neither tail nor rest sees them."""
    loss, model, batch = example(pairs.fine(), pairs.coarse())
    expected = loss(model, batch).total
    model.resize_token_embeddings(400, mean_resizing=False)
    torch.testing.assert_close(loss(model, batch).total, expected)


def test_what_is_refused() -> None:
    loss, model, batch = example(pairs.fine(), pairs.coarse())
    with pytest.raises(UsageError, match="the student has 259; is this its tokenizer"):
        loss(pairs.model(pairs.single_bytes()), batch)
    with pytest.raises(UsageError, match="beta=1"):
        CrossTokenizerLoss(model, loss.match, beta=1)
    with pytest.raises(UsageError, match="none below 0"):
        CrossTokenizerLoss(model, loss.match, uld=-1)
    batch["teacher"]["groups"] = batch["teacher"]["groups"].where(
        batch["teacher"]["groups"] != 2, -1
    )
    with pytest.raises(BadInput, match="groups of teacher and student differ"):
        loss(model, batch)
    with torch.no_grad():
        loss._teacher[0].model.layers[0].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(BadInput, match="the teacher gives numbers that are not finite"):
        loss(model, batch)


def test_a_batch_without_groups() -> None:
    loss, model, batch = example(pairs.fine(), pairs.coarse())
    for side in batch.values():
        side["groups"] = torch.full_like(side["groups"], -1)
    result = loss(model, batch)
    assert result.weight == 0
    assert not gradient(model, result.total).any()


def test_settings_are_in_the_text_of_the_loss() -> None:
    loss, _, _ = example(pairs.fine(), pairs.coarse())
    assert "beta=0.3" in repr(loss) and "273 of which are the same" in repr(loss)
    assert loss.state_dict() == {}
    batches = AlignedBatches(aligned_windows(loss.match, TEXTS, 120), 2, epochs=3)
    assert len(batches) == 6


def sentences(count: int, seed: int) -> list[str]:
    """Of a small grammar with 12,150 sentences."""
    rng = random.Random(seed)
    nouns = ["fox", "dog", "river", "garden", "morning", "house", "feather", "mother", "theatre"]
    verbs = ["sees", "follows", "counts", "leaves", "weighs", "opens"]
    kinds = ["old", "quick", "lazy", "small", "other"]
    return [
        f"the {rng.choice(kinds)} {rng.choice(nouns)} {rng.choice(verbs)} "
        f"the {rng.choice(kinds)} {rng.choice(nouns)}."
        for _ in range(count)
    ]


def small_teacher() -> nn.Module:
    """Trained on four hundred sentences, by torch alone."""
    tokenizer = pairs.coarse()
    model = pairs.scratch_model(len(tokenizer), 32, 1, 2, seed=0)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    ids = [torch.tensor(tokenizer(text).input_ids) for text in sentences(400, 0)]
    rows = pad_sequence(ids, batch_first=True, padding_value=-100)
    for batch in rows.repeat(3, 1).split(16):
        model(input_ids=batch.clamp_min(0), labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def train(model: nn.Module, loss: nn.Module, texts: list[Any], num_steps: int) -> list[float]:
    batches = AlignedBatches(texts, 8, epochs=num_steps)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    rows = steps(model, batches, loss, optimizer, Cosine(num_steps, 3), bf16=False)
    return [step.loss for step in rows]


def test_a_student_learns_from_a_teacher_with_another_tokenizer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From sixteen sentences, too few to know the grammar: the loss falls, and text that nobody
    has seen costs less than after as many steps of cross-entropy alone.
    """
    monkeypatch.setattr(divergence.chunked, "PARTS", 1)  # parts save memory and take time
    match = match_tokenizers(pairs.coarse(), pairs.fine())
    teacher = small_teacher()
    text_only = {"exact": 0.0, "uld": 0.0, "cross_entropy": 1.0}
    texts = aligned_windows(match, sentences(16, 1), 64)
    unseen = collate(aligned_windows(match, sentences(48, 2), 64))
    costs = {}
    for name, weights in (("distilled", {}), ("text only", text_only)):
        student = pairs.scratch_model(len(pairs.fine()), 32, 1, 2, seed=5)
        loss = CrossTokenizerLoss(teacher, match, **weights)
        losses = train(student, loss, texts, 60)
        assert losses[-1] < 0.5 * losses[0]
        with torch.no_grad():
            costs[name] = float(loss.rows(student.eval(), unseen)["cross_entropy"].mean())
    assert costs["distilled"] < 0.95 * costs["text only"], costs
