"""The whole workflow on tiny models: outputs, resuming after a kill, families, and errors for bad
input.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import featherweight
from featherweight.base.errors import BadInput, FeatherweightError, PreflightRefused, UsageError
from featherweight.interchange import loading
from featherweight.models.tensors import TensorFolder
from featherweight.quantization.curvature import FisherA
from featherweight.quantization.layers import compressed_layers
from featherweight.workflows.plan_folder import plan_folder
from featherweight.workflows.quantize_folder import quantize_folder
from featherweight.workflows.report_folder import report_folder

SMALL: dict[str, Any] = {
    "bits": 2,
    "preset": "balanced",
    "calibration": {"count": 8, "length": 32},
    "gate": {"count": 4},
    "evaluation": {"windows": 2, "length": 48, "blocks_seconds": 5, "prompts": 0},
}
FAMILIES = {"llama": tiny.llama, "qwen3": tiny.qwen3, "gemma": tiny.gemma3, "odd": tiny.odd}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(), tmp_path_factory.mktemp("model") / "llama")


def weights_of(out: Path) -> dict[str, bytes]:
    """The files that must be equal byte for byte: weights, config and recipe."""
    names = ["config.json", "run.yaml", *sorted(p.name for p in out.glob("*.safetensors"))]
    return {name: (out / name).read_bytes() for name in names}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_out_whole(family: str, tmp_path: Path) -> None:
    source = tiny.save(*FAMILIES[family](), tmp_path / family)
    out = quantize_folder(str(source), tmp_path / "out", SMALL, ask="Hello?")
    results = json.loads((out / "results.json").read_text())
    assert results["quality"]["kl_self"] == 0.0
    assert results["quality"]["kl"]["mean"] > 0
    assert results["size"]["bpw_codes"] < results["size"]["bpw_layers"]
    assert all(layer["error_plain"] < 0.5 for layer in results["layers"])
    assert results["samples"][0]["question"] == "Hello?"
    model, _ = loading.load(out)
    original, _ = loading.load(source)
    layer_names = {layer["name"] for layer in results["layers"]}
    assert layer_names == set(compressed_layers(model))
    ids = torch.arange(20).view(1, -1)
    with torch.no_grad():
        assert torch.isfinite(model(ids).logits).all()
        assert not torch.equal(model(ids).logits, original(ids).logits)
    assert not (tmp_path / "out.partial").exists()
    assert {"report.html", "README.md", "run.yaml", "results.json"} <= {
        p.name for p in out.iterdir()
    }
    assert [p.name for p in report_folder(out)] == ["report.html", "README.md"]


def test_portable_leaves_the_tied_table_and_exports(folder: Path, tmp_path: Path) -> None:
    settings = {key: value for key, value in SMALL.items() if key != "gate"} | {
        "preset": "portable",
        "bits": 4,
    }
    assert plan_folder(str(folder), settings).lines
    out = quantize_folder(str(folder), tmp_path / "out", settings, evaluate=False)
    light, _ = loading.load(out)
    assert {repr(module.format) for module in compressed_layers(light).values()} == {
        "Int(bits=4, group=32, portable=True)"
    }
    assert featherweight.export(out, "gguf", tmp_path / "light.gguf").types == {
        "Q4_0": 14,
        "F32": 6,
    }
    assert featherweight.export(out, "compressed-tensors", tmp_path / "ct").types == {
        "4 bits": 14,
        "float32": 6,
    }


@pytest.mark.parametrize("format", ["Ternary()", "Ternary(group=16)"])
def test_ternary_bodies_under_feedback(format: str, folder: Path, tmp_path: Path) -> None:
    errors = {}
    for method in ("LDLQ()", "Nearest()"):
        settings = {**SMALL, "preset": "fast", "plan": {"*_proj": format}, "rounding": method}
        out = quantize_folder(str(folder), tmp_path / method, settings, evaluate=False)
        layers = json.loads((out / "results.json").read_text())["layers"]
        errors[method] = sum(
            layer["error_weighted"] for layer in layers if layer["format"] == format
        )
    assert errors["LDLQ()"] < errors["Nearest()"]


def test_tables_of_4_bits(folder: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "preset": "fast", "head_bits": 4}
    out = quantize_folder(str(folder), tmp_path / "out", settings, evaluate=False)
    records = {
        layer["name"]: layer for layer in json.loads((out / "results.json").read_text())["layers"]
    }
    assert records["model.embed_tokens"]["format"] == "Int(bits=4, group=64)"
    assert records["model.embed_tokens"]["rounding"] == "LDLQ(damp=0.01)"
    assert (
        records["model.embed_tokens"]["error_weighted"]
        < records["model.embed_tokens"]["error_plain"]
    )
    model, _ = loading.load(out)
    assert model.model.embed_tokens.input_rotation and not list(model.lm_head.buffers())
    with torch.no_grad():
        assert torch.isfinite(model(torch.arange(20).view(1, -1)).logits).all()


def test_the_same_command_again_is_done(folder: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "preset": "fast"}
    out = quantize_folder(str(folder), tmp_path / "out", settings, evaluate=False)
    write_time = (out / "results.json").stat().st_mtime_ns
    assert quantize_folder(str(folder), tmp_path / "out", settings, evaluate=False) == out
    assert (out / "results.json").stat().st_mtime_ns == write_time
    with pytest.raises(UsageError, match="exists"):
        quantize_folder(str(folder), tmp_path / "out", {**settings, "seed": 3}, evaluate=False)


def test_killed_at_random_moments_ends_with_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    straight = quantize_folder(str(folder), tmp_path / "straight", SMALL, evaluate=False)
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, json, time\n"
        "from featherweight.workflows.quantize_folder import quantize_folder\n"
        "from pathlib import Path\n"
        "import torch; torch.set_num_threads(2)\n"
        "print('ready', flush=True)\n"
        "quantize_folder(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), evaluate=False,\n"
        "                listener=lambda e: (print(e.stage, flush=True), time.sleep(0.05)))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(featherweight.__file__).parents[1])}
    command = [
        sys.executable,
        str(script),
        str(folder),
        str(tmp_path / "killed"),
        json.dumps(SMALL),
    ]
    kills = 0
    for lines in (3, 9, 5):  # in curvature, in the layers, in the layers again
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        process.stdout.close()
        assert not (tmp_path / "killed").exists()
    assert kills == 3
    out = quantize_folder(str(folder), tmp_path / "killed", SMALL, evaluate=False)
    assert weights_of(out) == weights_of(straight)


def test_kept_curvature_serves_other_bits_and_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = {**SMALL, "bits": 3}
    straight = quantize_folder(str(folder), tmp_path / "straight", three, evaluate=False)
    quantize_folder(
        str(folder), tmp_path / "two", SMALL, evaluate=False, keep_curvature=tmp_path / "kept"
    )
    (collection,) = (tmp_path / "kept").iterdir()

    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("collected again")

    monkeypatch.setattr(FisherA, "accumulate", fail)
    out = quantize_folder(
        str(folder), tmp_path / "three", three, evaluate=False, keep_curvature=tmp_path / "kept"
    )
    assert weights_of(out) == weights_of(straight)
    more_text = {**three, "calibration": {"count": 9, "length": 32}}
    with pytest.raises(AssertionError, match="collected again"):
        quantize_folder(
            str(folder),
            tmp_path / "other",
            more_text,
            evaluate=False,
            keep_curvature=tmp_path / "kept",
        )
    collection.write_bytes(collection.read_bytes()[:1000])
    with pytest.raises(BadInput, match="not a readable curvature collection"):
        quantize_folder(
            str(folder),
            tmp_path / "broken",
            three,
            evaluate=False,
            keep_curvature=tmp_path / "kept",
        )


def test_a_changed_recipe_is_refused_and_fresh_starts_over(folder: Path, tmp_path: Path) -> None:
    def stop(event: Any) -> None:
        if event.stage == "layers" and event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_folder(str(folder), tmp_path / "out", SMALL, evaluate=False, listener=stop)
    with pytest.raises(UsageError, match="bits"):
        quantize_folder(str(folder), tmp_path / "out", {**SMALL, "bits": 3}, evaluate=False)
    out = quantize_folder(
        str(folder), tmp_path / "out", {**SMALL, "bits": 3}, evaluate=False, fresh=True
    )
    assert json.loads((out / "results.json").read_text())["recipe"]["bits"] == 3


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"bits": 9}, UsageError, "1, 2, 3 or 4"),
        ({"preset": "quick"}, UsageError, "quick"),
        ({"plan": {"*layers*": "Int(bits=4, group=48)"}}, UsageError, "group=48"),
        ({"plan": {"*.atention.*": "Int(bits=4)"}}, UsageError, "matches no layer"),
        ({"plan": {"lm_head": "Int(bitz=4)"}}, UsageError, "bits"),
        ({"rounding": "YAKA()"}, UsageError, "YAQA"),
        ({"colour": "red"}, UsageError, "colour"),
        ({"calibration": {"count": 60_000, "length": 32}}, BadInput, "calibration"),
    ],
)
def test_bad_recipes_leave_nothing(
    folder: Path, tmp_path: Path, settings: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as error_info:
        quantize_folder(str(folder), tmp_path / "out", {**SMALL, **settings}, evaluate=False)
    assert isinstance(error_info.value, FeatherweightError) and error_info.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_bad_models(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        quantize_folder(str(tmp_path / "nowhere" / "model"), tmp_path / "out", SMALL)
    truncated_model = tmp_path / "broken"
    truncated_model.mkdir()
    for file in folder.iterdir():
        data = file.read_bytes()
        (truncated_model / file.name).write_bytes(
            data[: len(data) // 2] if file.suffix == ".safetensors" else data
        )
    with pytest.raises(BadInput):
        quantize_folder(str(truncated_model), tmp_path / "out", SMALL)
    out = quantize_folder(
        str(folder), tmp_path / "light", {**SMALL, "preset": "fast"}, evaluate=False
    )
    with pytest.raises(UsageError, match="quantized already"):
        quantize_folder(str(out), tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_non_finite_weights_name_the_layer(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    damaged_model = tmp_path / "damaged"
    damaged_model.mkdir()
    for file in folder.iterdir():
        (damaged_model / file.name).write_bytes(file.read_bytes())
    tensors = load_file(damaged_model / "model.safetensors")
    name = next(n for n in tensors if n.endswith("down_proj.weight"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, damaged_model / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=name.removesuffix(".weight").replace(".", r"\.")):
        quantize_folder(str(damaged_model), tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_the_preflight_refuses(folder: Path, tmp_path: Path) -> None:
    for limits in ({"max_ram_gb": 0.01}, {"max_disk_gb": 0.000001}):
        with pytest.raises(PreflightRefused, match="needs about") as error_info:
            quantize_folder(str(folder), tmp_path / "out", SMALL, **limits)
        assert error_info.value.exit_code == 3
    assert not (tmp_path / "out.partial").exists()


def test_plan_names_every_layer(folder: Path) -> None:
    plan = plan_folder(str(folder), SMALL)
    assert len(plan.lines) == 15
    assert plan.bpw_codes < plan.bpw_layers < plan.bpw_file
    assert plan.seconds_low < plan.seconds < plan.seconds_high
    assert plan.peak_memory_bytes > 0 and plan.disk_bytes > plan.file_bytes > 0
    assert {line.pattern for line in plan.lines} == {"model.embed_tokens", "*"}
    assert plan.published_dtype == "float32"
    assert plan.published_bytes == plan.source_file_bytes == TensorFolder(folder).file_bytes
