"""A restored prefix gives the logits of a computed one, entries serve their own engine only, and
damaged files are computed again.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from fake_engine import FakeEngine
from safetensors.numpy import load_file, save_file

from featherweight.base import files
from featherweight.base.errors import UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference import ChatTokenizer, generate
from featherweight.inference.prefix_cache import PrefixCache
from featherweight.inference.reference import ReferenceEngine

IDS = np.random.default_rng(1).integers(3, 300, 60).tolist()


def session_of(engine: Any, ids: list[int]) -> Any:
    session = engine.session()
    engine.forward(session, ids)
    return session


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def restore(cache: PrefixCache, engine: Any, ids: list[int], capacity: int | None = None) -> int:
    session = engine.session(capacity)
    length = cache.restore(engine, session, ids)
    assert length == session.length and session.tokens == ids[:length]
    return length


def test_prefix_cache_keys(tmp_path: Path) -> None:
    cache, engine = PrefixCache(tmp_path, min_tokens=4), FakeEngine()
    branch = [*IDS[:10], 5, 5, 5]
    cache.save(engine, session_of(engine, IDS[:20]), IDS[:20])
    cache.save(engine, session_of(engine, branch), branch)
    assert restore(cache, engine, IDS) == 20
    num_open = engine.num_open_sessions
    assert restore(cache, engine, IDS, capacity=15) == 15, "an entry may be longer than the session"
    assert engine.num_open_sessions == 1 + num_open, "and leaves nothing open"
    assert restore(cache, engine, [*branch, 9]) == 13
    assert restore(cache, engine, IDS[:15]) == 15, "rewound to the common prefix"
    assert restore(cache, engine, [*IDS[:12], 7, 7]) == 12
    assert restore(cache, engine, [*IDS[:3], 7, 7]) == 0, "too short to be worth it"
    assert restore(cache, engine, [9, *IDS]) == 0
    assert restore(cache, FakeEngine(seed=1), IDS) == 0, "other weights"
    assert restore(PrefixCache(tmp_path, min_tokens=4), engine, IDS) == 20, "another process"
    session = session_of(engine, IDS[:30])
    assert cache.restore(engine, session, IDS) == 30, "what is there is longer"


def test_longer_texts_replace_their_prefixes(tmp_path: Path) -> None:
    cache, engine = PrefixCache(tmp_path, min_tokens=4), FakeEngine()
    for length in (10, 20, 15, 20):
        cache.save(engine, session_of(engine, IDS[:length]), IDS[:length])
    cache.save(engine, session_of(engine, IDS[:3]), IDS[:3])
    assert len(entries(tmp_path)) == 1
    assert restore(cache, engine, IDS) == 20
    with pytest.raises(UsageError, match="3 ids"):
        cache.save(engine, session_of(engine, IDS[:5]), IDS[:3])


def test_files_are_for_their_owner_and_leave_no_parts(tmp_path: Path) -> None:
    cache, engine = PrefixCache(tmp_path / "new", min_tokens=4), FakeEngine()
    cache.save(engine, session_of(engine, IDS), IDS)
    folder = entries(tmp_path / "new")[0].parent
    assert (
        stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    )
    assert len(list(folder.iterdir())) == 1


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def break_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 300)


def clear(path: Path) -> None:
    path.write_bytes(b"")


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def add_array(path: Path) -> None:
    arrays = load_file(path)
    arrays["state.more"] = arrays["tokens"]
    save_file(arrays, path)


def remove_tokens(path: Path) -> None:
    arrays = load_file(path)
    del arrays["tokens"]
    save_file(arrays, path)


@pytest.mark.parametrize(
    "damage", [truncate, break_header, clear, flip_bit, add_array, remove_tokens]
)
def test_damaged_files_are_removed(damage: Any, tmp_path: Path, caplog: Any) -> None:
    cache, engine = PrefixCache(tmp_path, min_tokens=4), FakeEngine()
    branch = [*IDS[:10], 5]
    cache.save(engine, session_of(engine, branch), branch)
    old_entries = entries(tmp_path)
    cache.save(engine, session_of(engine, IDS), IDS)
    (path,) = set(entries(tmp_path)) - set(old_entries)
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert restore(cache, engine, IDS) == 10, "the next best serves"
    assert path.name in caplog.text and "removed" in caplog.text
    assert entries(tmp_path) == old_entries


def test_the_least_recently_used_go(tmp_path: Path) -> None:
    engine = FakeEngine()
    texts = [[start, *IDS] for start in range(5)]
    PrefixCache(tmp_path / "one").save(engine, session_of(engine, texts[0]), texts[0])
    size = entries(tmp_path / "one")[0].stat().st_size
    cache = PrefixCache(tmp_path / "many", max_bytes=3 * size + size // 2)
    for count, ids in enumerate(texts[:3]):
        cache.save(engine, session_of(engine, ids), ids)
        newest = max(entries(tmp_path / "many"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, ns=(count, count))
    assert restore(cache, engine, texts[0]) == 61  # used: now texts[1] is the oldest
    cache.save(engine, session_of(engine, texts[3]), texts[3])
    assert [restore(cache, engine, ids) for ids in texts[:4]] == [61, 0, 61, 61]
    small = PrefixCache(tmp_path / "small", max_bytes=100)
    small.save(engine, session_of(engine, texts[0]), texts[0])
    assert entries(tmp_path / "small") == []


def test_a_full_disk_is_a_warning(
    tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, engine = PrefixCache(tmp_path), FakeEngine()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    cache.save(engine, session_of(engine, IDS), IDS)
    assert "no space left" in caplog.text
    assert list(tmp_path.rglob("*.part")) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="prefix cache"):
        PrefixCache(tmp_path / "file" / "below")


def test_generation_with_a_cache_is_the_same(tmp_path: Path) -> None:
    model, transformers_tokenizer = tiny.llama()
    engine = ReferenceEngine(model, "f", "tiny")
    tokenizer = ChatTokenizer.of(transformers_tokenizer)
    tokenizer.end_ids = frozenset()
    sampling = Sampling(max_tokens=8, temperature=0, logprobs=0)
    reference = list(generate(engine, tokenizer, IDS, sampling))
    cache = PrefixCache(tmp_path)
    for cached_tokens in (0, 59):
        generation = generate(engine, tokenizer, IDS, sampling, cache=cache)
        deltas = list(generation)
        assert [delta.tokens for delta in deltas] == [delta.tokens for delta in reference]
        np.testing.assert_allclose(
            [delta.choices[0].logprob for delta in deltas],
            [delta.choices[0].logprob for delta in reference],
            atol=1e-4,
        )
        assert generation.usage.cached_tokens == cached_tokens
    a, b = engine.session(), engine.session()
    assert cache.restore(engine, a, IDS) == len(IDS)
    engine.forward(b, IDS)
    np.testing.assert_allclose(engine.forward(a, [7]), engine.forward(b, [7]), atol=1e-4)
