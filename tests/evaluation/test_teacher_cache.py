"""A cached teacher answers as the live one does, and says so when it cannot."""

from __future__ import annotations

import pytest

from featherweight.base.errors import BadInput, UsageError
from featherweight.evaluation import KL, TeacherCache, evaluate


def test_float32_is_the_live_teacher_bit_for_bit(original, light, windows, tmp_path):
    live = evaluate(light, [KL(original, windows)]).quality
    for _ in range(2):
        assert evaluate(light, [KL(TeacherCache(original, tmp_path, "a"), windows)]).quality == live
    assert len(list(tmp_path.iterdir())) == 5
    assert evaluate(light, [KL(TeacherCache(None, tmp_path, "a"), windows)]).quality == live
    assert (
        evaluate(original, [KL(TeacherCache(None, tmp_path, "a"), windows)]).quality["kl"]["mean"]
        == 0.0
    )


def test_float16_is_close(original, light, windows, tmp_path):
    live = evaluate(light, [KL(original, windows)]).quality["kl"]["mean"]
    half = evaluate(light, [KL(TeacherCache(original, tmp_path, "a", "float16"), windows)]).quality[
        "kl"
    ]["mean"]
    assert half != live and half == pytest.approx(live, rel=0.01)


def test_other_weights_other_tokens_and_damaged_files_are_not_taken_for_it(
    original, windows, tmp_path
):
    tokens = windows[:1, :-1]
    TeacherCache(original, tmp_path, "a")(tokens)
    with pytest.raises(BadInput, match="missing"):
        TeacherCache(None, tmp_path, "b")(tokens)
    with pytest.raises(BadInput, match="missing"):
        TeacherCache(None, tmp_path, "a")(tokens.flip(1))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BadInput, match="delete it"):
        TeacherCache(None, tmp_path, "a")(tokens)


def test_windows_with_another_first_token_are_not_read_from_it(original, light, windows, tmp_path):
    evaluate(light, [KL(TeacherCache(original, tmp_path, "a"), windows)])
    with_bos = windows.clone()
    with_bos[:, 0] = 1
    with pytest.raises(BadInput, match="missing"):
        evaluate(light, [KL(TeacherCache(None, tmp_path, "a"), with_bos)])
    cached = evaluate(light, [KL(TeacherCache(original, tmp_path, "a"), with_bos)]).quality
    assert cached == evaluate(light, [KL(original, with_bos)]).quality


def test_wrong_dtype_and_batches_are_refused(original, windows, tmp_path):
    with pytest.raises(UsageError, match="int8"):
        TeacherCache(original, tmp_path, "a", "int8")
    with pytest.raises(UsageError, match="got 5"):
        TeacherCache(original, tmp_path, "a")(windows)
