"""A folder whose tokenizer transformers and the engines read in two ways is refused, showing where;
what is written holds a probe, and generation compares itself with it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from transformers import AutoTokenizer

import featherweight as fw
from featherweight.base.errors import BadInput, UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference.text.probe import PROBE, read_probe
from featherweight.inference.text.tokenizer import ChatTokenizer
from featherweight.interchange.exports import HF
from featherweight.interchange.exports.base import export
from featherweight.interchange.packed.model import PackedModel
from featherweight.interchange.tokenizer_check import probe_of
from featherweight.workflows.evaluate_folder import evaluate_folder
from featherweight.workflows.generate_text import generate_text
from featherweight.workflows.quantize_folder import quantize_folder
from featherweight.workflows.quantize_run import QuantizeRun

SPLIT = "differs from token .* transformers has .* tokenizer.json has"
RECIPE = {
    "bits": 4,
    "preset": "fast",
    "rounding": "Nearest()",
    "calibration": {"count": 4, "length": 16},
    "gate": None,
}


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save(*tiny.llama(), tmp_path / "source")


@pytest.fixture
def ambiguous(folder: Path) -> Path:
    """transformers builds Qwen's rule, which cuts digits one by one; tokenizer.json has GPT-2's."""
    change(folder / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")
    return folder


VERBS: list[Callable[[Path], object]] = [
    fw.load,
    probe_of,
    lambda folder: QuantizeRun.of(str(folder), {}),
    lambda folder: quantize_folder(str(folder), folder.parent / "out", {}),
    lambda folder: evaluate_folder(folder, windows=1, length=32),
    lambda folder: evaluate_folder(folder, windows=1, length=32, runtime="reference"),
]


@pytest.mark.parametrize("verb", VERBS)
def test_two_readers_that_differ(verb: Callable[[Path], object], ambiguous: Path) -> None:
    with pytest.raises(BadInput, match=f"Qwen2Tokenizer, and .*{SPLIT}"):
        verb(ambiguous)
    assert not list(ambiguous.parent.glob("out*"))


def test_both_ways_out_that_the_refusal_shows(ambiguous: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refusal:
        probe_of(ambiguous)
    [command] = re.findall(r"AutoTokenizer.*\)\.save_pretrained\('.*?'\)", str(refusal.value))
    settings = (ambiguous / "tokenizer_config.json").read_bytes()
    change(ambiguous / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert probe_of(ambiguous) is not None
    (ambiguous / "tokenizer_config.json").write_bytes(settings)
    eval(command)
    assert probe_of(ambiguous) is not None


def test_the_prefix_space_of_a_class(folder: Path) -> None:
    change(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", add_prefix_space=True)
    with pytest.raises(BadInput, match=f"GPT2Tokenizer, and .*{SPLIT}"):
        probe_of(folder)


def test_tokens_that_a_class_loses(folder: Path) -> None:
    """transformers' rebuilt classes know the added tokens of tokenizer_config.json only."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(folder)
    change(
        folder / "tokenizer_config.json",
        tokenizer_class="Qwen2Tokenizer",
        added_tokens_decoder={"2": {"content": "<|im_end|>", "special": True}},
    )
    with pytest.raises(BadInput, match="transformers has .* tokenizer.json has"):
        probe_of(folder)


def test_saving_a_tokenizer_that_comes_back_as_another(tmp_path: Path) -> None:
    source = tiny.save(*tiny.llama(), tmp_path / "source")
    change(source / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(source)
    # Its class builds the splitting rule anew when it is loaded.
    tokenizer.backend_tokenizer.pre_tokenizer = tiny.tokenizer().backend_tokenizer.pre_tokenizer
    model, _ = tiny.llama()
    fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=4, group=32)}))
    with pytest.raises(BadInput, match="is another one|cut text differently"):
        fw.save(model, tmp_path / "out", tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_is_written_holds_a_probe(folder: Path, tmp_path: Path) -> None:
    out = quantize_folder(str(folder), tmp_path / "out", RECIPE, evaluate=False)
    export(PackedModel(out), HF(), tmp_path / "dense")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for written_folder in (out, tmp_path / "dense"):
        probe = read_probe(written_folder / PROBE)
        assert any("<|im_start|>" in entry.text for entry in probe)
        for entry in probe:
            assert tokenizer(entry.text).input_ids == entry.ids
        ChatTokenizer.open(written_folder)
        assert AutoTokenizer.from_pretrained(written_folder)("The fox 12").input_ids
    model, tokenizer = fw.load(out)
    fw.save(model, tmp_path / "again", tokenizer)
    assert (tmp_path / "again" / PROBE).read_bytes() == (out / PROBE).read_bytes()
    (out / PROBE).unlink()  # as older versions wrote it
    ChatTokenizer.open(out)


def test_a_folder_that_changed_since_it_was_written(folder: Path, tmp_path: Path) -> None:
    out = quantize_folder(str(folder), tmp_path / "out", RECIPE, evaluate=False)
    content = json.loads((out / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            content["pre_tokenizer"],
        ],
    }
    (out / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="'.*' differs from token .* this folder has"):
        ChatTokenizer.open(out)
    with pytest.raises(BadInput, match="differs from token .* this one has"):
        fw.load(out)


def test_special_tokens_that_are_no_longer_special(folder: Path, tmp_path: Path) -> None:
    out = quantize_folder(str(folder), tmp_path / "out", RECIPE, evaluate=False)
    content = json.loads((out / "tokenizer.json").read_text())
    content["added_tokens"][0]["special"] = False
    (out / "tokenizer.json").write_text(json.dumps(content))
    change(out / "tokenizer_config.json", unk_token=None)
    with pytest.raises(BadInput, match="the text .* in transformers"):
        ChatTokenizer.open(out)


@pytest.mark.parametrize("content", ["", "[]", '{"texts": [{"text": 1}]}', '{"texts": [1]}'])
def test_a_probe_that_cannot_be_read(content: str, folder: Path) -> None:
    (folder / PROBE).write_text(content)
    with pytest.raises(BadInput, match=PROBE):
        ChatTokenizer.open(folder)


def test_a_folder_without_a_tokenizer_has_no_probe(tmp_path: Path) -> None:
    assert probe_of(tmp_path) is None


def test_calibration_with_a_token_that_the_embedding_lacks(folder: Path, tmp_path: Path) -> None:
    change(folder / "tokenizer_config.json", extra_special_tokens=["<|new|>"])
    (folder / "chat_template.jinja").write_text("<|new|>" + tiny.CHAT)
    (text := tmp_path / "text.txt").write_text("<|new|> the fox is there. " * 40)
    calibration = {"count": 4, "length": 16, "files": [str(text)]}
    recipe = {**RECIPE, "calibration": calibration}
    with pytest.raises(BadInput, match="'<.new.>' with the id 300, and the embedding has 300 rows"):
        quantize_folder(str(folder), tmp_path / "out", recipe, evaluate=False)
    with (
        pytest.raises(UsageError, match="token 300 is not in this model's vocabulary of 300"),
        generate_text(folder, "hi", Sampling(max_tokens=1)) as generation,
    ):
        list(generation)


def test_generation_starts_with_the_probe_and_without_transformers(
    folder: Path, tmp_path: Path
) -> None:
    out = quantize_folder(str(folder), tmp_path / "out", RECIPE, evaluate=False)
    code = (
        "import sys, time\nfrom featherweight.inference.text.tokenizer import ChatTokenizer\n"
        "from featherweight.inference.text.probe import check_probe\nfrom pathlib import Path\n"
        f"folder = Path({str(out)!r})\ntokenizer = ChatTokenizer.open(folder)\n"
        "start = time.process_time()\ncheck_probe(folder, tokenizer)\n"
        "assert time.process_time() - start < 0.05\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
