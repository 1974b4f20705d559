"""A user's files: what is read, and errors that name the file and the line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from featherweight.base.errors import BadInput
from featherweight.data.corpora import Dialogue
from featherweight.data.user_files import read_documents


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_text_is_split_at_two_blank_lines(tmp_path: Path) -> None:
    assert read_documents(write(tmp_path / "a.md", "Ä\n\nb\n\n\nc\n".encode())) == ["Ä\n\nb", "c\n"]
    assert read_documents(write(tmp_path / "a.txt.gz", gzip.compress(b"one\n"))) == ["one\n"]


def test_rows_may_be_text_pairs_or_messages(tmp_path: Path) -> None:
    lines = b"""{"text": "plain"}

{"prompt": "p", "answer": "a"}
{"prompt": "alone"}
{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]}
"""
    documents = ["plain", Dialogue("p", "a"), Dialogue("alone"), Dialogue("u", "v")]
    assert read_documents(write(tmp_path / "a.jsonl", lines)) == documents
    assert read_documents(write(tmp_path / "a.jsonl.gz", gzip.compress(lines))) == documents


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n\n\n\n ", "holds no text"),
        ("a.txt", b"ok \xff\xfe", r"not UTF-8 text \(byte 3\)"),
        ("a.txt.gz", gzip.compress(b"whole text", mtime=0)[:-9], "not a whole gzip file"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "line 2: expected a JSON object"),
        ("a.jsonl", b'{"texts": "a"}', "line 1: expected a JSON object"),
        ("a.jsonl", b'["a"]', "line 1: expected a JSON object"),
        ("a.jsonl", b'{"messages": ["a"]}', "line 1: expected a JSON object"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error_info:
        read_documents(write(tmp_path / name, content))
    assert name in str(error_info.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="missing.txt cannot be read: No such file"):
        read_documents(tmp_path / "missing.txt")
