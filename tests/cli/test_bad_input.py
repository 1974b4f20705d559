"""Bad input gives one line in the user's words and its exit code, and leaves no half-written output
folder.

Each case runs the command itself, on a real tiny model. Cases marked `late` can only be known after
the work has begun; there finished work may stay in OUT.partial/, so that the same command resumes.
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
from featherweight.cli import main

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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(), tmp_path_factory.mktemp("model") / "llama")


def quantize(model: Path | str, out: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["quantize", str(model), "--out", str(out), "--bits", "2", *SMALL, *arguments])
    return int(stop.value.code or 0)


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def overwrite_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])


def remove_tensor(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.pop("model.layers.0.mlp.up_proj.weight"))


def cut_tensor(folder: Path) -> None:
    def cut(tensors: dict[str, torch.Tensor]) -> None:
        name = "model.layers.0.mlp.up_proj.weight"
        tensors[name] = tensors[name][:-1].contiguous()

    change_tensors(folder, cut)


def insert_nan(folder: Path) -> None:
    change_tensors(
        folder,
        lambda tensors: tensors["model.layers.1.self_attn.q_proj.weight"][0].fill_(float("nan")),
    )


def cause_overflow(folder: Path) -> None:
    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        for part in ("up", "gate"):
            tensors[f"model.layers.0.mlp.{part}_proj.weight"].mul_(1e25)

    change_tensors(folder, enlarge)


def change_model_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no-such-model"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "model.safetensors"),
        (overwrite_header, "model.safetensors"),
        (remove_tensor, "model.layers.0.mlp.up_proj"),
        (cut_tensor, "model.layers.0.mlp.up_proj"),
        (insert_nan, "model.layers.1.self_attn.q_proj"),
        (cause_overflow, "model.layers.0.mlp.down_proj: its inputs are not finite"),
        (change_model_type, "no-such-model"),
    ],
)
def test_damaged_models(
    damage: Callable[[Path], None], words: str, folder: Path, tmp_path: Path, capsys: Any
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    damage(copy)
    assert quantize(copy, tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
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
    arguments: tuple[str, ...], words: str, code: int, folder: Path, tmp_path: Path, capsys: Any
) -> None:
    assert quantize(folder, tmp_path / "out", *arguments) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    partial = tmp_path / "out.partial"
    assert not partial.exists() or not list(partial.rglob("*.safetensors"))


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


def test_too_little_text(folder: Path, tmp_path: Path, capsys: Any) -> None:
    text = tmp_path / "short.txt"
    text.write_text("Only this sentence.")
    assert quantize(folder, tmp_path / "out", "--set", f"calibration.files=[{text}]") == 2
    assert "calibration" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_and_is_freed(
    folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late: the disk fills up while layers are solved; the same command goes on when there is space
    again.
    """
    replace, count = files.os.replace, 0

    def fill(source: Any, target: Any) -> None:
        nonlocal count
        count += 1
        if count > 12:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", fill)
    assert quantize(folder, tmp_path / "out") == 2
    assert "no space left on the disk" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and (tmp_path / "out.partial").exists()
    monkeypatch.setattr(files.os, "replace", replace)
    main_code = quantize(folder, tmp_path / "out")
    assert main_code == 0 and (tmp_path / "out" / "model.safetensors").exists()
