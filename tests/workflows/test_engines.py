"""Which engine opens for a model, and the reason when it is not the native one."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from featherweight.base.errors import BadInput, UsageError
from featherweight.inference.reference import ReferenceEngine
from featherweight.interchange.source import Source
from featherweight.models.config import folder_fingerprint
from featherweight.workflows import engines
from featherweight.workflows.engines import open_engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(), tmp_path_factory.mktemp("model") / "llama")


def test_reference(folder: Path) -> None:
    engine, tokenizer = open_engine(folder, "reference")
    assert isinstance(engine, ReferenceEngine)
    assert (engine.vocab_size, engine.context, tokenizer.vocab_size) == (300, 512, 300)
    assert "llama" in engine.description and "PyTorch" in engine.description
    int8_engine, _ = open_engine(str(folder), "reference-int8")
    assert engine.fingerprint != int8_engine.fingerprint
    engine.close()
    int8_engine.close()


def test_a_source_opens_the_same_engine(folder: Path) -> None:
    source = Source.find(folder)
    engine, _ = open_engine(source, "reference")
    assert engine.fingerprint == f"{source.fingerprint}-reference"
    engine.close()


def test_auto_says_once_why_it_is_not_native(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(engines, "_native", lambda source, threads: "its family is unknown there")
    with caplog.at_level(logging.WARNING):
        engine, _ = open_engine(folder)
    assert isinstance(engine, ReferenceEngine)
    assert [record.getMessage() for record in caplog.records] == [
        "llama runs on PyTorch: its family is unknown there"
    ]
    with pytest.raises(
        UsageError, match="cannot run on the native engine: its family is unknown there.*reference"
    ):
        open_engine(folder, "native")
    engine.close()


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'turbo': choose auto, native"):
        open_engine(folder, "turbo")
    with pytest.raises(BadInput, match="was not found"):
        open_engine("no-such-model")
    with pytest.raises(BadInput, match="no config.json"):
        open_engine(tmp_path)


def test_a_shorter_context_on_the_native_engine_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny.save(*tiny.phi3(), tmp_path / "phi3")
    engine, _ = open_engine(folder, "native")
    engine.close()
    assert engine.context == 64
    assert "phi3: the native engine runs 64 of this model's 512 positions" in caplog.text


def test_a_fingerprint_changes_with_the_weights(tmp_path: Path) -> None:
    folder = tiny.save(*tiny.llama(), tmp_path / "a")
    fingerprint = folder_fingerprint(folder)
    assert folder_fingerprint(folder) == fingerprint
    (folder / "model.safetensors").touch()
    assert folder_fingerprint(folder) != fingerprint
    config = json.loads((folder / "config.json").read_text())
    fingerprint = folder_fingerprint(folder)
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert folder_fingerprint(folder) != fingerprint


def test_finding_a_model_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys\nfrom featherweight.workflows.engines import open_engine\n"
        "from featherweight.interchange.source import Source\n"
        "from featherweight.inference import ChatTokenizer\n"
        "import featherweight.workflows.generate_text, featherweight.workflows.chat_folder\n"
        "import featherweight.inference.prefix_cache, featherweight.inference.text.grammars\n"
        f"source = Source.find({str(folder)!r})\n"
        "ChatTokenizer.open(source.path)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
