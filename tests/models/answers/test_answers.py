"""Answers on disk: what is written is read, and nothing else is taken for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors import safe_open
from torch import nn

from featherweight.base import machine
from featherweight.base.errors import BadInput, PreflightRefused, UsageError
from featherweight.evaluation import KL, Perplexity, evaluate
from featherweight.models.answers import (
    Answers,
    Full,
    Header,
    Kind,
    Sampled,
    SparseAnswer,
    TopK,
    size_bytes,
    write_answers,
    writing,
)
from featherweight.ops.divergence import forward_kl, top_k_kl

VOCABULARY, LENGTH = 300, 12
OLD_HEADER = json.dumps(
    {
        "version": 1,
        "kind": {"kind": "top_k", "k": 8, "dtype": "float16"},
        "temperature": 1.0,
        "vocabulary": 300,
        "windows": 1,
        "length": 12,
        "windows_per_file": 1,
        "text": "",
        "tokenizer": "",
        "template": "",
        "model": "",
        "seed": 0,
    }
)


@pytest.fixture
def model() -> nn.Module:
    return tiny.llama()[0].eval()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (5, LENGTH + 1), generator=torch.Generator().manual_seed(0))


def write(model: nn.Module, tokens: torch.Tensor, folder: Path, kind: Kind, **more: Any) -> Answers:
    facts = {"tokenizer": tiny.tokenizer(), "model_id": "weights"} | more
    return write_answers(model, tokens, folder, kind, **facts)


def logits_of(model: nn.Module, window: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(window[None, :-1]).logits[0]


def test_full_answers_are_the_logits(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    answers = write(model, tokens, tmp_path, Full("float32"))
    assert torch.equal(answers.tokens, tokens)
    for answer, window in zip(answers, tokens, strict=True):
        assert torch.equal(answer.logits, logits_of(model, window))
        assert torch.equal(answer.tokens, window)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_top_k_holds_the_largest_the_exact_tail_and_the_target(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path, dtype: str, temperature: float
) -> None:
    answers = write(model, tokens, tmp_path, TopK(8, dtype), temperature=temperature)
    answer = answers[3]
    log_p = torch.log_softmax(logits_of(model, tokens[3]) / temperature, -1)
    top = log_p.topk(8, -1)
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    assert torch.equal(answer.ids, top.indices)
    torch.testing.assert_close(answer.log_p, top.values, atol=tolerance, rtol=0)
    torch.testing.assert_close(answer.log_tail.exp(), 1 - top.values.exp().sum(-1))
    sums = answer.log_p.exp().sum(-1) + answer.log_tail.exp()
    torch.testing.assert_close(sums, torch.ones(LENGTH))
    torch.testing.assert_close(answer.log_target, log_p.gather(-1, tokens[3, 1:, None])[:, 0])


def test_top_k_of_the_whole_vocabulary_is_the_full_kl(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    answer = write(model, tokens, tmp_path, TopK(VOCABULARY, "float32"))[0]
    student, teacher = torch.randn(LENGTH, VOCABULARY), logits_of(model, tokens[0])
    got = top_k_kl(student, answer.ids, answer.log_p, answer.log_tail)
    torch.testing.assert_close(got, forward_kl(student, teacher))


def test_drawn_tokens_have_the_frequencies_of_the_model(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    answers = write(model, tokens, tmp_path, Sampled(2000))
    p = torch.softmax(logits_of(model, tokens[0]), -1)
    answer = answers[0]
    drawn = torch.zeros_like(p)
    drawn.scatter_add_(-1, answer.ids, answer.log_p.exp())
    torch.testing.assert_close(drawn.sum(-1), torch.ones(LENGTH))
    assert (drawn - p).abs().sum(-1).mean() / 2 < 1.5 * math.sqrt(VOCABULARY / (2 * math.pi * 2000))
    assert answer.log_p[:, 0].isfinite().all()


@pytest.mark.parametrize("draws", [3, 2000])
def test_draws_of_the_others_hold_their_mass(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path, draws: int
) -> None:
    """With many draws, the whole distribution; with few, still nothing but its mass."""
    answer = write(model, tokens, tmp_path, TopK(8, "float32", draws))[0]
    assert answer.drawn is not None
    assert not (answer.drawn[:, :, None] == answer.ids[:, None]).any()
    spread = answer.with_tail_on_draws()
    p = torch.softmax(logits_of(model, tokens[0]), -1)
    got = torch.zeros_like(p).scatter_add_(-1, spread.ids, spread.log_p.exp())
    torch.testing.assert_close(got.sum(-1), torch.ones(LENGTH))
    torch.testing.assert_close(got.gather(-1, answer.ids), p.gather(-1, answer.ids))
    # A count differs from its expectation by less than 1.
    assert ((got - p).abs() <= answer.log_tail.exp()[:, None] / draws + 1e-6).all()


def test_draws_beside_the_whole_vocabulary_are_nothing(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    answer = write(model, tokens, tmp_path, TopK(VOCABULARY, "float32", 2))[0]
    spread = answer.with_tail_on_draws()
    assert (spread.log_p[:, VOCABULARY:] == -math.inf).all()
    loss = top_k_kl(torch.randn(LENGTH, VOCABULARY), spread.ids, spread.log_p, spread.log_tail)
    assert loss.isfinite().all()


def test_answers_without_draws_are_read_as_before() -> None:
    """A header from before there were draws has no such entry."""
    facts = Header.read({"featherweight-answers": OLD_HEADER}, "answers")
    assert facts.kind == TopK(8, "float16", draws=0)


def test_draws_are_those_of_the_seed(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    first = write(model, tokens, tmp_path / "a", Sampled(4))
    again = write(model, tokens, tmp_path / "b", Sampled(4))
    other = write(model, tokens, tmp_path / "c", Sampled(4), seed=1)
    assert torch.equal(first[1].ids, again[1].ids)
    assert not torch.equal(first[1].ids, other[1].ids)


def test_a_killed_run_continues_after_its_last_file(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FILE_BYTES", 1)
    whole = write(model, tokens, tmp_path / "whole", TopK(4))
    asked: list[int] = []

    class Killed(Exception):
        pass

    def listener(event: Any) -> None:
        if event.done == 3:
            raise Killed

    with pytest.raises(Killed):
        write(model, tokens, tmp_path / "part", TopK(4), listener=listener)
    with pytest.raises(BadInput, match="lacks 2 of 5 files"):
        Answers.open(tmp_path / "part")
    part = write(
        model, tokens, tmp_path / "part", TopK(4), listener=lambda event: asked.append(event.done)
    )
    assert max(asked) == 2
    for name in ("answers-00000.safetensors", "answers-00004.safetensors"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert torch.equal(part[4].ids, whole[4].ids)


def test_other_answers_in_the_folder_are_not_continued(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    write(model, tokens, tmp_path, TopK(4))
    with pytest.raises(UsageError, match="these differ: kind"):
        write(model, tokens, tmp_path, TopK(8))
    with pytest.raises(UsageError, match="these differ: model"):
        write(model, tokens, tmp_path, TopK(4), model_id="other weights")
    with pytest.raises(UsageError, match="these differ: text"):
        write(model, tokens.flip(1), tmp_path, TopK(4))


def test_cache_header_mismatch_raises(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    write(model, tokens, tmp_path, TopK(4))
    assert len(Answers.open(tmp_path, tokenizer=tiny.tokenizer(), tokens=tokens)) == 5
    other = tiny.tokenizer()
    other.add_tokens(["<new>"])
    with pytest.raises(BadInput, match="other tokens"):
        Answers.open(tmp_path, tokenizer=other)
    with pytest.raises(BadInput, match="another text"):
        Answers.open(tmp_path, tokens=tokens[:4])


def test_cached_temperature_refused(model: nn.Module, tokens: torch.Tensor, tmp_path: Path) -> None:
    write(model, tokens, tmp_path / "sparse", TopK(4), temperature=2.0)
    with pytest.raises(UsageError, match="at temperature 2.0"):
        Answers.open(tmp_path / "sparse", temperature=1.0)
    write(model, tokens, tmp_path / "full", Full())
    assert Answers.open(tmp_path / "full", temperature=3.0)
    with pytest.raises(UsageError, match="every temperature"):
        write(model, tokens, tmp_path / "no", Full(), temperature=2.0)


def test_files_of_another_set_are_not_mixed_in(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FILE_BYTES", 1)
    write(model, tokens, tmp_path / "a", TopK(4))
    write(model, tokens, tmp_path / "b", TopK(5))
    name = "answers-00002.safetensors"
    (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(BadInput, match="belongs to other answers"):
        Answers.open(tmp_path / "a")


def test_damaged_files_are_refused(model: nn.Module, tokens: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "answers-00000.safetensors"
    with pytest.raises(BadInput, match="holds no answers"):
        Answers.open(tmp_path)
    write(model, tokens, tmp_path, TopK(4))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BadInput, match="cannot be read"):
        Answers.open(tmp_path)
    path.write_bytes(tiny_file())
    with pytest.raises(BadInput, match="no file of answers"):
        Answers.open(tmp_path)


def tiny_file() -> bytes:
    from safetensors.torch import save

    return save({"x": torch.zeros(1)})


def test_nan_in_the_teacher_names_the_place(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    calls = []

    def spoil(module: nn.Module, inputs: Any, output: Any) -> None:
        calls.append(output.logits.shape[1])
        # The first call asks for the vocabulary.
        if len(calls) == 4:
            output.logits[0, 4] = math.nan

    model.register_forward_hook(spoil)
    with pytest.raises(BadInput, match="not finite in window 2, at token 4"):
        write(model, tokens, tmp_path, TopK(4))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_refused_before_the_work(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = size_bytes(Full(), VOCABULARY, len(tokens), LENGTH)
    write(model, tokens, tmp_path / "fits", Full())
    stored = sum(path.stat().st_size for path in (tmp_path / "fits").iterdir())
    assert needed <= stored < needed + 2000
    monkeypatch.setattr(machine, "free_disk_bytes", lambda path: needed - 1)
    with pytest.raises(PreflightRefused, match="GB in"):
        write(model, tokens, tmp_path / "no", Full())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (TopK(0), "k=0"),
        (TopK(301), "k=301"),
        (Sampled(0), "draws=0"),
        (Full("int8"), "int8"),
    ],
)
def test_impossible_kinds_are_refused(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path, kind: Kind, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write(model, tokens, tmp_path, kind)


def test_answers_stand_in_for_the_original_in_an_evaluation(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    light = tiny.llama(seed=1)[0].eval()
    live = evaluate(light, [Perplexity(tokens), KL(model, tokens)]).quality
    full = write(model, tokens, tmp_path / "full", Full("float32"))
    assert evaluate(light, [Perplexity(tokens), KL(full, tokens)]).quality == live
    whole = write(model, tokens, tmp_path / "whole", TopK(VOCABULARY, "float32"))
    quality = evaluate(light, [KL(whole, tokens)]).quality
    assert quality["kl"]["mean"] == pytest.approx(live["kl"]["mean"], rel=1e-4)
    assert quality["top1"] == live["top1"]
    part = evaluate(light, [KL(write(model, tokens, tmp_path / "part", TopK(8)), tokens)]).quality
    assert 0 < part["kl"]["mean"] < live["kl"]["mean"]
    assert "at most the whole KL" in part["kl"]["of"]
    with pytest.raises(UsageError, match="not to measure with"):
        KL(write(model, tokens, tmp_path / "drawn", Sampled(4)), tokens)
    with pytest.raises(BadInput, match="another text"):
        KL(full, tokens.flip(1))


def test_the_header_says_what_the_file_holds(
    model: nn.Module, tokens: torch.Tensor, tmp_path: Path
) -> None:
    answers = write(model, tokens, tmp_path, TopK(4), name="tiny")
    with safe_open(tmp_path / "answers-00000.safetensors", "pt") as file:
        assert set(file.keys()) == {"ids", "log_p", "log_tail", "log_target", "tokens"}
        assert file.get_slice("ids").get_dtype() == "U16"
        assert list(file.metadata()) == ["featherweight-answers"]
    assert answers.header.name == "tiny" and answers.header.kind == TopK(4)
    assert isinstance(answers[0], SparseAnswer)
