"""The shipped texts: all there, small, licensed, and no calibration text repeats an evaluation
text.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from importlib.resources import files

import pytest

from featherweight.base.errors import UsageError
from featherweight.data import mixes
from featherweight.data.corpora import CORPORA, Dialogue, corpus, text

OVERLAP_WORDS = 13
TEXTS = files("featherweight.data") / "texts"


def runs(content: str, length: int = OVERLAP_WORDS) -> set[tuple[str, ...]]:
    """Runs of words without case, punctuation and WikiText's ` @-@ ` and `<unk>`."""
    text = re.sub(r" @([-,.])@ ", r"\1", content.replace("<unk>", " "))
    words = re.findall(r"[^\W_]+", text.lower())
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def files_of(role: str) -> list[str]:
    """One corpus name for each file of a role."""
    return list(
        {source.file: source.name for source in CORPORA.values() if source.role == role}.values()
    )


def test_no_calibration_text_repeats_an_evaluation_text() -> None:
    evaluation_runs = {run: name for name in files_of("evaluation") for run in runs(text(name))}
    assert len(evaluation_runs) > 100_000
    for name in files_of("calibration"):
        overlap = runs(text(name)) & evaluation_runs.keys()
        assert not overlap, (
            f"{name} shares {' '.join(min(overlap))!r} with {evaluation_runs[min(overlap)]}"
        )


def test_the_overlap_check_sees_a_planted_copy() -> None:
    copy = (
        " He had a guest-starring ROLE in 2000, in the television series; The Bill, "
        "and more followed later on ."
    )
    original = (
        "He had a guest @-@ starring role in 2000 in the television series The Bill "
        "and more followed later on"
    )
    assert runs(copy) & runs(original)


def test_a_file_has_one_role() -> None:
    roles: dict[str, set[str]] = {}
    for source in CORPORA.values():
        roles.setdefault(source.file, set()).add(source.role)
    assert all(len(role) == 1 for role in roles.values())


def test_wikitext_is_the_published_file() -> None:
    content = text("wikitext2_test")
    assert len(content.encode("utf-8")) == 1_256_449
    assert content.startswith(" \n = Robert <unk> = \n")


@pytest.mark.parametrize("name", CORPORA)
def test_every_source_has_documents(name: str) -> None:
    source = corpus(name)
    documents = source.documents()
    assert len(documents) >= 12 or source.file == "wikitext2_test.txt.gz"
    assert all((d.prompt if isinstance(d, Dialogue) else d).strip() for d in documents)
    assert source.licence
    assert source.description


def test_the_texts_are_small_and_packed_without_a_time() -> None:
    contents = {source.file: (TEXTS / source.file).read_bytes() for source in CORPORA.values()}
    assert sum(map(len, contents.values())) < 3_000_000
    for name, content in contents.items():
        assert content[4:8] == bytes(4), f"{name} carries a time stamp"
        assert gzip.decompress(content)
    file_names = {entry.name for entry in TEXTS.iterdir() if entry.name.endswith(".gz")}
    assert file_names == set(contents), "a file that no corpus reads, or a corpus without a file"


def test_the_readme_names_every_file_and_licence() -> None:
    readme = (TEXTS / "README.md").read_text(encoding="utf-8")
    for source in CORPORA.values():
        assert source.file in readme
        assert source.licence.replace("Apache-2.0", "Apache 2.0") in readme


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'novels"):
        text("novel")
    with pytest.raises(UsageError, match="did you mean 'shipped"):
        mixes.mix("shiped")


def test_every_mix_reads_calibration_sources() -> None:
    assert mixes.mix("shipped") is mixes.SHIPPED_MIX
    for shares in mixes.MIXES.values():
        assert all(
            corpus(name).role == "calibration" and share > 0 for name, share in shares.items()
        )
        with pytest.raises(TypeError):
            shares["novels"] = 1.0  # type: ignore[index]


def test_sources_and_mixes_need_no_torch() -> None:
    code = (
        "import sys, featherweight.data as d; d.text('humaneval'); d.MIXES; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
