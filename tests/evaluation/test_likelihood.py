"""Likelihoods equal those of a forward pass over each text alone, and shared prefixes cost once."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from fake_engine import FakeEngine

from featherweight.base.errors import BadInput, UsageError
from featherweight.evaluation.likelihood import LikelihoodScorer, encode_pair
from featherweight.inference.reference import ReferenceEngine

CONTEXT = [5, 6, 7, 8, 9]
CONTINUATIONS = [[10], [10, 11, 12], [13, 11], [10]]


def slow_twin(engine, context, continuation):
    session = engine.session()
    rows = engine.forward(session, [*context, *continuation], logits="all").astype(np.float64)
    session.close()
    rows = rows[len(context) - 1 : -1]
    log_p = rows - np.log(np.exp(rows - rows.max(1, keepdims=True)).sum(1, keepdims=True))
    log_p -= rows.max(1, keepdims=True)
    logprob = sum(row[token] for row, token in zip(log_p, continuation, strict=True))
    return logprob, all(row.argmax() == t for row, t in zip(rows, continuation, strict=True))


def test_scores_equal_the_slow_twin_in_any_order() -> None:
    model, _ = tiny.llama()
    engine = ReferenceEngine(model, "x", "x")
    contexts = [CONTEXT, CONTEXT[:3], [*CONTEXT, 20, 21], [40, 41], CONTEXT]
    with LikelihoodScorer(engine) as scorer:
        for context in contexts:
            for continuation in CONTINUATIONS:
                score = scorer.score(context, continuation)
                logprob, is_greedy = slow_twin(engine, context, continuation)
                assert score.logprob == pytest.approx(logprob, abs=1e-4)
                assert (score.is_greedy, score.num_tokens) == (is_greedy, len(continuation))
                assert not score.is_truncated


def test_greedy_continuations_are_recognised() -> None:
    engine = FakeEngine()
    ids = list(CONTEXT)
    for _ in range(3):
        ids.append(int(engine.row(ids).argmax()))
    with LikelihoodScorer(engine) as scorer:
        assert scorer.score(CONTEXT, ids[len(CONTEXT) :]).is_greedy
        assert not scorer.score(CONTEXT, [*ids[len(CONTEXT) : -1], ids[-1] ^ 1]).is_greedy
    assert engine.num_open_sessions == 0


def test_prefixes_are_computed_once() -> None:
    engine = FakeEngine()
    with LikelihoodScorer(engine) as scorer:
        for continuation in CONTINUATIONS:
            scorer.score(CONTEXT, continuation)
        # The question once, and of each choice all tokens but the last.
        assert engine.num_computed == len(CONTEXT) + sum(len(c) - 1 for c in CONTINUATIONS)
        scorer.score([*CONTEXT, 20], [1])
        assert engine.num_computed == len(CONTEXT) + 3 + 1


def test_long_texts_lose_their_beginning() -> None:
    engine = FakeEngine(context=8)
    context = list(range(1, 12))
    with LikelihoodScorer(engine) as scorer:
        score = scorer.score(context, [20, 21, 22])
        # 8 tokens are read and the last one is only predicted.
        same = scorer.score(context[-6:], [20, 21, 22])
        assert score.is_truncated and not same.is_truncated
        assert score.logprob == same.logprob
        with pytest.raises(UsageError, match="does not fit the 8"):
            scorer.score(context, list(range(9)))
        for pair in (([], [1]), ([1], [])):
            with pytest.raises(UsageError, match="a context and a continuation"):
                scorer.score(*pair)


def test_numbers_that_are_not_finite_are_refused() -> None:
    engine = FakeEngine()
    engine.row = lambda tokens: np.full(300, np.nan, np.float32)  # type: ignore[method-assign]
    with LikelihoodScorer(engine) as scorer, pytest.raises(BadInput, match="not finite"):
        scorer.score([1, 2], [3])


def test_pairs_are_tokenized_together() -> None:
    encode = tiny.tokenizer().encode
    context, continuation = encode_pair(encode, "The quick ", "brown fox")
    assert context + continuation == encode("The quick brown fox")
    assert context == encode("The quick"), "the space belongs to the continuation"
    assert encode_pair(encode, "The quick", " brown fox") == (context, continuation)
    with pytest.raises(UsageError, match="needs a context"):
        encode_pair(encode, "", "brown")
