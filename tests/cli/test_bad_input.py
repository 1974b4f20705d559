"""What bad input says: one line in the user's words, its exit code, and no half-written output
folder.

Each case runs the command itself, on a real tiny model. Cases marked `late` can only be known after
work has begun; there what was finished may stay in OUT.partial/, so that the same command resumes.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from featherweight.base import files
from featherweight.cli.app import main

SMALL = (
    "--set",
    "calibration.count=8",
    "--set",
    "calibration.length=32",
    "--set",
    "gate.count=4",
    "--no-evaluate",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(), tmp_path_factory.mktemp("model") / "llama")


def quantize(model: Path | str, out: Path, *more: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["quantize", str(model), "--out", str(out), "--bits", "2", *SMALL, *more])
    return int(stop.value.code or 0)


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def garbled(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])


def without_a_tensor(folder: Path) -> None:
    changed(folder, lambda tensors: tensors.pop("model.layers.0.mlp.up_proj.weight"))


def with_another_shape(folder: Path) -> None:
    def cut(tensors: dict[str, torch.Tensor]) -> None:
        name = "model.layers.0.mlp.up_proj.weight"
        tensors[name] = tensors[name][:-1].contiguous()

    changed(folder, cut)


def not_finite(folder: Path) -> None:
    changed(
        folder,
        lambda tensors: tensors["model.layers.1.self_attn.q_proj.weight"][0].fill_(float("nan")),
    )


def overflowing(folder: Path) -> None:
    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        for part in ("up", "gate"):
            tensors[f"model.layers.0.mlp.{part}_proj.weight"].mul_(1e25)

    changed(folder, enlarge)


def unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no-such-model"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "model.safetensors"),
        (garbled, "model.safetensors"),
        (without_a_tensor, "model.layers.0.mlp.up_proj"),
        (with_another_shape, "model.layers.0.mlp.up_proj"),
        (not_finite, "model.layers.1.self_attn.q_proj"),
        (overflowing, "model.layers.0.mlp.down_proj: its inputs are not finite"),
        (unknown_architecture, "no-such-model"),
    ],
)
def test_damaged_models(
    damage: Callable[[Path], None], words: str, whole: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    damage(folder)
    assert quantize(folder, tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words", "code"),
    [
        (("--bits", "9"), "bits must be 1, 2, 3 or 4", 2),
        (("--bits", "two"), "--bits", 2),
        (("--set", "plan.*layers*=Int(bits=4, group=48)"), "group=48", 2),
        (("--set", "plan.*layers*=Int(bits=9)"), "bits", 2),
        (("--set", "plan.*.atention.*=Int(bits=4)"), "'*.atention.*' matches no layer", 2),
        (("--preset", "quick"), "quick", 2),
        (("--set", "rounding=YAKA()"), "YAQA", 2),
        (("--set", "calibration.count=60000"), "sequences", 2),
        (("--set", "calibration.files=[nowhere.txt]"), "nowhere.txt", 2),
        (("--config", "nowhere.yaml"), "nowhere.yaml", 2),
        (("--max-ram", "0.01"), "GB of memory", 3),
        (("--max-disk", "0.000001"), "GB of disk", 3),
    ],
)
def test_bad_settings_come_before_the_work(
    more: tuple[str, ...], words: str, code: int, whole: Path, tmp_path: Path, capsys: Any
) -> None:
    assert quantize(whole, tmp_path / "out", *more) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    left = tmp_path / "out.partial"
    assert not left.exists() or not list(left.rglob("*.safetensors"))


def test_a_missing_model(tmp_path: Path, capsys: Any) -> None:
    assert quantize(tmp_path / "nowhere", tmp_path / "out") == 2
    assert "nowhere" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_model_without_linears(tmp_path: Path, capsys: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        "vocab_size": len(tiny.tokenizer()),
    }
    folder = tiny.save(GPT2LMHeadModel(GPT2Config(**size)), tiny.tokenizer(), tmp_path / "gpt2")
    assert quantize(folder, tmp_path / "out") == 2
    assert "linear" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_too_little_text(whole: Path, tmp_path: Path, capsys: Any) -> None:
    text = tmp_path / "short.txt"
    text.write_text("Only this sentence.")
    assert quantize(whole, tmp_path / "out", "--set", f"calibration.files=[{text}]") == 2
    assert "calibration" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_and_is_freed(
    whole: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late: the disk fills in the middle of the layers; the same command goes on when there is
    space again.
    """
    replace, count = files.os.replace, 0

    def fill(source: Any, target: Any) -> None:
        nonlocal count
        count += 1
        if count > 12:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", fill)
    assert quantize(whole, tmp_path / "out") == 2
    assert "no space left on the disk" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and (tmp_path / "out.partial").exists()
    monkeypatch.setattr(files.os, "replace", replace)
    main_code = quantize(whole, tmp_path / "out")
    assert main_code == 0 and (tmp_path / "out" / "model.safetensors").exists()
