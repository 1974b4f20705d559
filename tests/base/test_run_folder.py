"""A run folder survives kills, torn files and changed minds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from featherweight.base import run_folder
from featherweight.base.errors import BadInput, UsageError
from featherweight.base.events import Event
from featherweight.base.files import write_atomic
from featherweight.base.run_folder import RunFolder, is_finished

RECIPE = {
    "model": "toy",
    "bits": 2,
    "plan": {"lm_head": "Int(bits=8)", "*": "Trellis(bits=2)"},
    "shape": (1, 2),
}


def solve(run: RunFolder, unit: str, content: bytes = b"codes") -> None:
    path = run.work / f"{unit}.bin"
    write_atomic(path, content)
    run.finish_unit(unit, "inputs", path, {"error": 0.5, "shape": (2, 3)})


def test_resume_finds_finished_units(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out", RECIPE) as run:
        assert run.done("layer.0", "inputs") is None
        solve(run, "layer.0")
        run.finish_unit("rotation", "inputs", None, {"seed": 1})
    with RunFolder(tmp_path / "out", RECIPE) as run:
        assert run.done("layer.0", "inputs") == {"error": 0.5, "shape": [2, 3]}
        assert run.done("rotation", "inputs") == {"seed": 1}
        assert run.done("layer.0", "other inputs") is None
        assert run.done("layer.1", "inputs") is None


@pytest.mark.parametrize(
    "damage", ["altered", "missing", "torn record", "other record", "binary record"]
)
def test_damaged_units_are_done_again(tmp_path: Path, damage: str) -> None:
    with RunFolder(tmp_path / "out", RECIPE) as run:
        solve(run, "layer.0")
        record = run.folder / "journal" / "layer.0.json"
        if damage == "altered":
            (run.work / "layer.0.bin").write_bytes(b"c0des")
        elif damage == "missing":
            (run.work / "layer.0.bin").unlink()
        elif damage == "torn record":
            record.write_text(record.read_text()[:40])
        elif damage == "other record":
            record.write_text("[]")
        else:
            record.write_bytes(b"\xff\xfe\x00")
        assert run.done("layer.0", "inputs") is None
        solve(run, "layer.0")
        assert run.done("layer.0", "inputs") is not None


def test_unit_names_cannot_leave_the_journal(tmp_path: Path) -> None:
    names = ["../../evil", "a/b", "layer " * 80, ".", "ä"]
    with RunFolder(tmp_path / "out", RECIPE) as run:
        for name in names:
            run.finish_unit(name, "f", None, {"name": name})
        assert [run.done(name, "f") for name in names] == [{"name": name} for name in names]
        assert len(list((run.folder / "journal").iterdir())) == len(names)
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]


def test_a_changed_recipe_is_refused_naming_the_keys(tmp_path: Path) -> None:
    RunFolder(tmp_path / "out", RECIPE).close()
    changed = {**RECIPE, "bits": 3, "plan": {"*": "Trellis(bits=2)"}, "seed": 0}
    with pytest.raises(UsageError) as error:
        RunFolder(tmp_path / "out", changed)
    message = str(error.value)
    assert "bits: 2 became 3" in message
    assert "plan.lm_head: Int(bits=8) became absent" in message
    assert "seed: absent became 0" in message
    assert "--fresh" in message
    assert "shape" not in message


def test_another_order_of_patterns_is_another_recipe(tmp_path: Path) -> None:
    RunFolder(tmp_path / "out", RECIPE).close()
    turned = {**RECIPE, "plan": {"*": "Trellis(bits=2)", "lm_head": "Int(bits=8)"}}
    with pytest.raises(UsageError, match=r"plan: the order lm_head, \* became \*, lm_head"):
        RunFolder(tmp_path / "out", turned)
    RunFolder(tmp_path / "out", dict(reversed(RECIPE.items()))).close()


def test_fresh_starts_over(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out", RECIPE) as run:
        solve(run, "layer.0")
    with RunFolder(tmp_path / "out", {**RECIPE, "bits": 3}, fresh=True) as run:
        assert run.done("layer.0", "inputs") is None
        assert list(run.work.iterdir()) == []
        assert yaml.safe_load((run.folder / "run.yaml").read_text())["bits"] == 3


def test_an_unreadable_recipe_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path / "out", RECIPE).close()
    (tmp_path / "out.partial" / "run.yaml").write_text("{bits: [")
    with pytest.raises(UsageError, match="--fresh"):
        RunFolder(tmp_path / "out", RECIPE)


def test_publish_is_one_rename(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "out", RECIPE)
    solve(run, "layer.0")
    run.listener(Event("solve", 1, 1))
    write_atomic(run.folder / "model.safetensors", b"weights")
    (run.folder / ".model.safetensors.1-1.part").write_bytes(b"left by a kill")
    assert not (tmp_path / "out").exists()
    assert run.publish() == tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "run.yaml",
        "events.jsonl",
        "model.safetensors",
    }
    assert is_finished(tmp_path / "out", RECIPE)
    assert not is_finished(tmp_path / "out", {**RECIPE, "bits": 3})
    assert not is_finished(tmp_path / "other", RECIPE)


def test_an_existing_folder_needs_overwrite(tmp_path: Path) -> None:
    RunFolder(tmp_path / "out", RECIPE).publish()
    with pytest.raises(UsageError, match="--overwrite"):
        RunFolder(tmp_path / "out", RECIPE)
    RunFolder(tmp_path / "out", {**RECIPE, "bits": 3}, overwrite=True).publish()
    assert yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())["bits"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    for name in ("out", "new.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not made by featherweight"):
        RunFolder(tmp_path / "out", RECIPE, overwrite=True)
    with pytest.raises(UsageError, match="not an unfinished run"):
        RunFolder(tmp_path / "new", RECIPE, fresh=True)
    with pytest.raises(UsageError, match="is a file"):
        RunFolder(tmp_path / "file", RECIPE, overwrite=True)
    with pytest.raises(UsageError, match="names no folder"):
        RunFolder("..", RECIPE)
    assert (tmp_path / "out" / "thesis.tex").exists()
    assert (tmp_path / "new.partial" / "thesis.tex").exists()


def test_out_appearing_meanwhile_is_not_lost(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "out", RECIPE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other").write_text("")
    with pytest.raises(UsageError, match="--overwrite"):
        run.publish()
    run.close()
    assert (tmp_path / "out.partial" / "run.yaml").exists()


def test_events_are_json_lines_and_a_torn_line_is_ended(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out", RECIPE) as run:
        run.listener(Event("solve", 1, 4, 2.0, 6.0, "layer.0"))
        path = run.folder / "events.jsonl"
    first = json.loads(path.read_text())
    assert {key: first[key] for key in ("stage", "done", "total", "eta_seconds", "message")} == {
        "stage": "solve",
        "done": 1,
        "total": 4,
        "eta_seconds": 6.0,
        "message": "layer.0",
    }
    path.write_text(path.read_text() + '{"time": 1, "sta')
    with RunFolder(tmp_path / "out", RECIPE) as run:
        run.listener(Event("solve", 2, 4))
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[2])["done"] == 2


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    code = (
        "import sys; from featherweight.base.run_folder import RunFolder; "
        "run = RunFolder(sys.argv[1], {'bits': 2}); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(UsageError, match="another process"):
            RunFolder(tmp_path / "out", {"bits": 2})
        other.kill()
    RunFolder(tmp_path / "out", {"bits": 2}).close()


def test_a_full_disk_while_logging(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out", RECIPE) as run:
        run._events.close()
        with open("/dev/full", "a", encoding="utf-8") as full:
            run._events = full
            with pytest.raises(BadInput, match="no space left"):
                run.listener(Event("solve", 1, 1))
            run._events = open(run.folder / "events.jsonl", "a", encoding="utf-8")  # noqa: SIM115
            try:
                full.close()
            except OSError:
                pass


def test_run_yaml_says_what_made_it(tmp_path: Path) -> None:
    RunFolder(tmp_path / "out", RECIPE).close()
    tree = yaml.safe_load((tmp_path / "out.partial" / "run.yaml").read_text())
    assert tree.pop(run_folder.ORIGIN).keys() == {"machine", "versions"}
    assert run_folder.differing_keys(tree, RECIPE) == []
