"""Reads a user's own calibration files: plain text, or JSON lines with the keys that most data sets
use, gzipped or not.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from ..base.errors import BadInput
from .corpora import DOCUMENT_BREAK, Dialogue, Document


def read_documents(path: Path) -> list[Document]:
    """The documents of one file: a text file is split at two blank lines, and each line of a
    `.jsonl` file is one document.

    Raises BadInput, which names the file and the line, when the file is missing, not UTF-8,
    malformed or empty.
    """
    text = read_text_file(path, "calibration file")
    name = path.name.removesuffix(".gz")
    documents = _parse_lines(path, text) if name.endswith(".jsonl") else _split_text(text)
    if not documents:
        raise BadInput(f"calibration file {path} holds no text")
    return documents


def read_text_file(path: Path, noun: str) -> str:
    """The text of a UTF-8 file, gzipped or not; `noun` says in errors what the file is.

    Raises BadInput, which names the file, when it is missing, no whole gzip file, or not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{noun} {path} cannot be read: {error.strerror or error}") from error
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8")
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{noun} {path} is not a whole gzip file: {error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{noun} {path} is not UTF-8 text (byte {error.start})") from error


def _split_text(text: str) -> list[Document]:
    return [document for document in text.split(DOCUMENT_BREAK) if document.strip()]


def _parse_lines(path: Path, text: str) -> list[Document]:
    documents: list[Document] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            documents.append(_document(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"{path}, line {number}: expected a JSON object with text, "
                "with prompt and answer, or with messages"
            ) from error
    return documents


def _document(row: dict[str, Any]) -> Document:
    if "text" in row:
        return str(row["text"])
    if "messages" in row:
        # Only the first message of each role is used.
        contents = {
            message["role"]: str(message["content"]) for message in reversed(row["messages"])
        }
        return Dialogue(contents["user"], contents.get("assistant", ""))
    return Dialogue(str(row["prompt"]), str(row.get("answer", "")))
