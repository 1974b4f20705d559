"""The benchmark of rollouts can tell an exact sampler from others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import featherweight as fw


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import rollouts

    return rollouts


def test_only_the_right_sampler_is_uniform(benchmark: Any) -> None:
    model, _ = tiny.llama()
    prompts = [np.random.default_rng(0).integers(3, 300, n).tolist() for n in (4, 9)]
    right = fw.Sampling(max_tokens=6, temperature=0.8, top_p=0.95)
    texts = [prompt for prompt in prompts for _ in range(150)]

    def p_value(answers: Any) -> float:
        return float(benchmark.uniformity(benchmark.rank_masses(model, texts, answers, right)))

    def sample(sampling: fw.Sampling) -> Any:
        return benchmark.answers_of(fw.rollouts(model, prompts, 150, sampling, end_ids=()))

    assert p_value(sample(right)) > 1e-2
    theirs = benchmark.generate(model, prompts, 150, 6, (), temperature=0.8, top_p=0.95)
    assert all(len(answer) == 6 for answer in theirs) and p_value(theirs) > 1e-3
    assert p_value(sample(fw.Sampling(max_tokens=6, temperature=0.6, top_p=0.95))) < 1e-4
    assert p_value(sample(fw.Sampling(max_tokens=6, temperature=0.8))) < 1e-4
    assert benchmark.uniformity(np.full(500, np.nan)) == 0.0


def test_answers_are_cut_at_their_end_token(benchmark: Any) -> None:
    model, _ = tiny.llama()
    answers = benchmark.generate(model, [[5, 6], [7, 8, 9]], 4, 12, list(range(60)))
    assert len(answers) == 8 and len(set(map(len, answers))) > 2
    for answer in answers:
        assert all(token >= 60 for token in answer[:-1])
        assert answer[-1] < 60 or len(answer) == 12
