"""Facts about the machine are plausible, private and found without torch."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from featherweight.base import machine


def test_plausible() -> None:
    assert machine.cpu_name()
    assert 1 <= machine.num_cores() <= (os.cpu_count() or 1)
    assert 0 < machine.available_memory_bytes() <= machine.total_memory_bytes()
    assert machine.peak_memory_bytes() > 1_000_000
    assert machine.load_average() >= 0


def test_free_disk_of_a_folder_to_be_made(tmp_path: Path) -> None:
    assert machine.free_disk_bytes(tmp_path / "not" / "yet") > 0


def test_versions() -> None:
    found = machine.versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"].count(".") >= 1


def test_nothing_private_is_told() -> None:
    told = json.dumps([machine.describe(), machine.versions()])
    assert platform.node() not in told
    assert str(Path.home()) not in told


def test_a_control_group_bounds_memory(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 300000\n")
    monkeypatch.setattr(machine, "_group_folder", lambda: tmp_path)
    assert machine.total_memory_bytes() == 1_000_000
    assert machine.available_memory_bytes() == 600_000
