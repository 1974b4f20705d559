"""Calibration: exactly as many unique sequences of exactly one length, seeded, in the mix's shares,
fingerprinted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import tiny
import torch

from featherweight import data
from featherweight.base.errors import BadInput, UsageError
from featherweight.data.corpora import Dialogue

from .test_tokens import with_bos

MIX = {"tasks_chat": 0.5, "restaurants_chat": 0.25, "plays": 0.25}


def test_calibration_has_the_shape_and_the_shares() -> None:
    calibration = data.calibration(tiny.tokenizer(), count=40, length=96, mix=MIX)
    assert calibration.tokens.shape == (40, 96)
    assert calibration.tokens.dtype == torch.int64
    assert len(calibration) == 40
    assert len({tuple(row) for row in calibration.tokens.tolist()}) == 40
    assert [calibration.origins[:20].count(name) for name in MIX] == [10, 5, 5]
    assert [
        (s["name"], s["sequences"], s["tokens"]) for s in calibration.fingerprint["sources"]
    ] == [
        ("tasks_chat", 20, 20 * 96),
        ("restaurants_chat", 10, 10 * 96),
        ("plays", 10, 10 * 96),
    ]


def test_the_fingerprint_names_the_tokens() -> None:
    calibration = data.calibration(tiny.tokenizer(), count=8, length=64, mix=MIX, seed=3)
    raw = b"".join(
        int(token).to_bytes(8, "little") for row in calibration.tokens.tolist() for token in row
    )
    assert calibration.fingerprint["tokens_sha256"] == hashlib.sha256(raw).hexdigest()
    facts = {key: calibration.fingerprint[key] for key in ("sequences", "length", "seed", "bos")}
    assert facts == {"sequences": 8, "length": 64, "seed": 3, "bos": False}
    assert (
        calibration.fingerprint["template"] == hashlib.sha256(tiny.CHAT.encode()).hexdigest()[:16]
    )
    assert {s["licence"] for s in calibration.fingerprint["sources"]} == {
        "Apache-2.0",
        "CC BY-SA 4.0",
        "public domain",
    }


def test_the_template_counts_only_where_it_is_used() -> None:
    assert (
        data.calibration(tiny.tokenizer(), 2, 64, mix={"plays": 1.0}).fingerprint["template"]
        is None
    )


def test_the_same_seed_gives_the_same_tokens_and_a_prefix() -> None:
    first = data.calibration(tiny.tokenizer(), count=24, length=64, mix=MIX)
    assert torch.equal(
        first.tokens, data.calibration(tiny.tokenizer(), count=24, length=64, mix=MIX).tokens
    )
    assert torch.equal(
        first.tokens[:9], data.calibration(tiny.tokenizer(), count=9, length=64, mix=MIX).tokens
    )
    assert not torch.equal(
        first.tokens, data.calibration(tiny.tokenizer(), 24, 64, seed=1, mix=MIX).tokens
    )


def test_a_bos_stands_once_at_the_start() -> None:
    calibration = data.calibration(with_bos(), count=8, length=64, mix={"plays": 1.0})
    assert calibration.fingerprint["bos"] is True
    assert bool((calibration.tokens[:, 0] == 1).all())
    assert not bool((calibration.tokens[:, 1:] == 1).any())


def test_chat_starts_with_the_template() -> None:
    tokenizer = tiny.tokenizer()
    dialogues = [Dialogue(f"What is {i} + {i}?", str(2 * i)) for i in range(100)]
    calibration = data.calibration_from_documents(tokenizer, dialogues, count=10, length=100)
    assert all(tokenizer.decode(row).startswith("<|im_start|>user\n") for row in calibration)


def test_too_little_text_says_how_much_there_is_and_how_much_is_needed() -> None:
    message = (
        r"tasks_chat has \d+ tokens \(\d+ sequences of 512\); "
        r"5000 sequences \(2560000 tokens\) are needed"
    )
    with pytest.raises(BadInput, match=message):
        data.calibration(tiny.tokenizer(), count=10_000, length=512, mix=MIX)
    with pytest.raises(
        BadInput, match=r"text has \d+ tokens \(\d sequences of 100\); 64 sequences"
    ):
        data.calibration_from_text(tiny.tokenizer(), tiny.TEXT, count=64, length=100)


@pytest.mark.parametrize("mix", [{}, {"plays": 0.0}, {"plays": -1.0}, {"plays": float("nan")}])
def test_shares_must_be_positive(mix: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="share"):
        data.calibration(tiny.tokenizer(), 2, 64, mix=mix)


def test_evaluation_text_is_refused() -> None:
    with pytest.raises(UsageError, match="wikitext2_test is evaluation text"):
        data.calibration(tiny.tokenizer(), 2, 64, mix={"wikitext2_test": 1.0})
    with pytest.raises(UsageError, match="at least 1 sequence"):
        data.calibration(tiny.tokenizer(), 0, 64)


def test_the_shipped_mix_is_large_enough_for_the_presets() -> None:
    # The tiny vocabulary makes about two tokens of one of a real tokenizer's.
    assert len(data.calibration(tiny.tokenizer(), count=256, length=512)) == 256


def test_files_are_mixed_in_proportion(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(data.text("plays")[:30_000], encoding="utf-8")
    (tmp_path / "short.txt").write_text(data.text("plays")[30_000:40_000], encoding="utf-8")
    calibration = data.calibration_from_files(
        tiny.tokenizer(), tmp_path / "long.txt", tmp_path / "short.txt", count=40, length=64
    )
    counts = {s["name"]: s["sequences"] for s in calibration.fingerprint["sources"]}
    assert 28 <= counts["long.txt"] <= 32
    assert str(tmp_path) not in repr(calibration.fingerprint)


def test_files_with_too_little_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ten words", encoding="utf-8")
    with pytest.raises(
        BadInput, match=r"the calibration files hold \d+ tokens; one sequence needs 512"
    ):
        data.calibration_from_files(tiny.tokenizer(), tmp_path / "a.txt", count=4, length=512)
    with pytest.raises(UsageError, match="two calibration files are called a.txt"):
        data.calibration_from_files(tiny.tokenizer(), tmp_path / "a.txt", tmp_path / "a.txt")
    with pytest.raises(UsageError, match="no calibration file"):
        data.calibration_from_files(tiny.tokenizer())


def test_documents_may_be_dialogues() -> None:
    dialogues = [Dialogue(f"What is {i} + {i}?", str(2 * i)) for i in range(100)]
    calibration = data.calibration_from_documents(
        tiny.tokenizer(), dialogues, count=10, length=64, name="sums", licence="MIT"
    )
    assert calibration.fingerprint["sources"] == [
        {"name": "sums", "licence": "MIT", "sequences": 10, "tokens": 640}
    ]
    assert calibration.fingerprint["template"]


def test_blend_interleaves_and_counts() -> None:
    tokenizer = tiny.tokenizer()
    plays = data.calibration(tokenizer, 12, 64, mix={"plays": 1.0})
    chats = data.calibration(tokenizer, 12, 64, mix={"restaurants_chat": 0.5, "tasks_chat": 0.5})
    calibration = data.blend([(plays, 0.5), (chats, 0.5)], count=16)
    assert torch.equal(calibration.tokens[::2], plays.tokens[:8])
    assert torch.equal(calibration.tokens[1::2], chats.tokens[:8])
    assert {s["name"]: s["sequences"] for s in calibration.fingerprint["sources"]} == {
        "plays": 8,
        "restaurants_chat": 4,
        "tasks_chat": 4,
    }
    assert calibration.fingerprint["template"]
    with pytest.raises(BadInput, match="has 12 sequences; its share needs 20"):
        data.blend([(plays, 0.5), (chats, 0.5)], count=40)
    with pytest.raises(UsageError, match="cannot be blended"):
        data.blend(
            [(plays, 0.5), (data.calibration(tokenizer, 4, 32, mix={"plays": 1.0}), 0.5)], count=4
        )
