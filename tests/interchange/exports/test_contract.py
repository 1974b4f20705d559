"""What every target promises, for each class of `exports.__all__`: it writes what it holds and
nothing else, each tensor once, the same bytes every time, and it sees when a file is not the model.
"""

from __future__ import annotations

import dataclasses
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporting
import pytest
import tiny

from featherweight.base.errors import FeatherweightError, UsageError
from featherweight.base.events import Event, silent
from featherweight.interchange import exports
from featherweight.interchange.exports.base import Exporter, export
from featherweight.interchange.packed import folder as packed
from featherweight.interchange.packed.model import PackedModel
from featherweight.interchange.tensor_progress import TensorProgress
from featherweight.quantization.formats import Int, Ternary, Trellis
from featherweight.quantization.formats.base import Format

PORTABLE = Int(bits=4, group=32, portable=True)
PLANS: dict[str, dict[str, Format | None]] = {
    "portable": {"*": PORTABLE},
    "eight": {"*": Int(bits=8, portable=True)},
    "two": {"*": Int(bits=2, group=64, portable=True)},
    "three": {"*": Int(bits=3, group=32, portable=True)},
    "ternary": {"*": Ternary(group=32)},
    "asymmetric": {"*": Int(bits=4, group=32, symmetric=False, portable=True)},
    "trellis": {"*": Trellis(bits=2)},
    "narrow": {"*.down_proj": Int(bits=4, group=16), "*": PORTABLE},
    "table": {"model.embed_tokens": Int(bits=8, portable=True), "*": PORTABLE},
    "partly": {"*.o_proj": None, "*": PORTABLE},
}
Target = type[Exporter[Any]]


@pytest.fixture(params=exports.__all__)
def target(request: pytest.FixtureRequest) -> Target:
    exporter: Target = getattr(exports, request.param)
    return exporter


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("packed")
    return {name: exporting.pack(root / name, tiny.llama, plan) for name, plan in PLANS.items()}


def out_path(target: Target, folder: Path, name: str = "out") -> Path:
    return folder / f"{name}{target.file_suffix or ''}"


def files(path: Path) -> dict[str, bytes]:
    paths = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name: file.read_bytes() for file in paths}


def test_the_class_is_found_by_its_name(target: Target) -> None:
    name = target().name
    assert exports.find(name) is target
    assert len(exports.summaries()[name]) > 10
    module = importlib.import_module(f"{exports.__name__}.{name.replace('-', '_')}")
    assert getattr(module, target.__name__) is target and module.__doc__
    assert dataclasses.is_dataclass(target) and target() == target()


@pytest.mark.parametrize("plan", PLANS)
def test_it_writes_what_it_holds_and_nothing_else(
    target: Target, plan: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model, exporter, out = PackedModel(folders[plan]), target(), out_path(target, tmp_path)
    matrices = [matrix for name in model.names if (matrix := model.matrix(name)) is not None]
    reasons = {exporter.holds(matrix) for matrix in matrices} - {None}
    if reasons:
        with pytest.raises(UsageError) as error:
            export(model, exporter, out)
        assert any(reason in str(error.value) for reason in reasons if reason)
        assert not list(tmp_path.iterdir())
        return
    events: list[Event] = []
    made = export(model, exporter, out, listener=events.append)
    assert made.num_tensors == len(model.names) == sum(made.types.values())
    assert list(exporter.plan(model).tensors) == model.names
    assert made.path == out and list(tmp_path.iterdir()) == [out] and made.file_bytes > 0
    assert [event.done for event in events] == list(range(2 * len(model.names) + 1))
    assert {event.total for event in events} == {2 * len(model.names)}


def test_the_same_bytes_every_time(
    target: Target, folders: dict[str, Path], tmp_path: Path
) -> None:
    paths = [out_path(target, tmp_path / name) for name in "ab"]
    for path in paths:
        export(PackedModel(folders["portable"]), target(), path)
    assert files(paths[0]) == files(paths[1])


def test_only_exports_to_the_same_target_are_replaced(
    target: Target, folders: dict[str, Path], tmp_path: Path
) -> None:
    model, out = PackedModel(folders["portable"]), out_path(target, tmp_path)
    first = files(export(model, target(), out).path)
    with pytest.raises(UsageError, match="exists already"):
        export(model, target(), out)
    assert files(export(model, target(), out, overwrite=True).path) == first
    (tmp_path / "mine").mkdir()
    out.rename(tmp_path / "mine" / "earlier")
    out.mkdir()
    (out / "photos").mkdir()
    with pytest.raises(UsageError, match="is no export"):
        export(model, target(), out, overwrite=True)
    assert (out / "photos").is_dir()


@pytest.mark.parametrize("change", ["flip", "cut"])
def test_damage_is_seen(
    target: Target, change: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Flip a bit of the last weight, or drop it: reading back must notice."""
    model, exporter, out = PackedModel(folders["portable"]), target(), out_path(target, tmp_path)
    export(model, exporter, out)
    path = out if out.is_file() else out / "model.safetensors"
    data = bytearray(path.read_bytes())
    if change == "flip":
        # The float just before the padding that may follow the last tensor.
        end = len(data.rstrip(b"\0"))
        data[end - 1] ^= 0x40
    else:
        del data[-64:]
    path.write_bytes(bytes(data))
    plan = exporter.plan(model)
    progress = TensorProgress("export", len(plan.tensors), silent)
    with pytest.raises(FeatherweightError):
        exporter.read_back(model, plan, out, progress)


def test_the_packed_folder_stays_as_it_was(
    target: Target, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["portable"], tmp_path / "packed")
    before = files(folder)
    export(PackedModel(folder), target(), out_path(target, tmp_path))
    assert files(folder) == before


def test_rotated_matrices_are_decoded_or_refused(
    target: Target, tmp_path: Path, compress: Callable[..., Any]
) -> None:
    model, tokenizer = tiny.llama()
    folder = packed.save(compress(model, PORTABLE), tmp_path / "packed", tokenizer)
    rotated = PackedModel(folder)
    matrix = rotated.matrix("model.layers.0.mlp.up_proj.weight")
    assert matrix is not None and matrix.stored_matrix.is_rotated
    if target().holds(matrix) is None:
        export(rotated, target(), out_path(target, tmp_path))
    else:
        with pytest.raises(UsageError, match="rotated"):
            export(rotated, target(), out_path(target, tmp_path))


def test_listing_the_targets_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from featherweight.interchange import exports; exports.summaries(); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
