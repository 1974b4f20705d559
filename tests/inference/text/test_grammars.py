"""Answers after a schema are JSON after that schema, whatever the model would rather say."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
import tiny
from fake_engine import FakeEngine

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference import ChatTokenizer, generate
from featherweight.inference.text.grammars import GrammarMask, Grammars

TOKENIZER = ChatTokenizer.of(tiny.tokenizer())
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["fox", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def schema_mask(schema: Any, vocab_size: int = 300) -> GrammarMask:
    return Grammars(TOKENIZER, vocab_size).json_schema(schema)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UsageError, match=r"pip install featherweight\[schema\]"):
        schema_mask(SCHEMA)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("lookup", [0, 5])
def test_answers_follow_the_schema(temperature: float, lookup: int) -> None:
    pytest.importorskip("llguidance")
    for seed in range(6):
        # More logits than the tokenizer knows, as padded vocabularies have.
        engine = FakeEngine(vocab_size=320, seed=seed)
        mask = schema_mask(json.dumps(SCHEMA) if seed % 2 else SCHEMA, 320)
        sampling = Sampling(max_tokens=200, temperature=temperature, seed=seed)
        deltas = list(generate(engine, TOKENIZER, [5, 6], sampling, mask=mask, lookup=lookup))
        answer = "".join(delta.text for delta in deltas)
        if deltas[-1].finish == "length":
            continue  # JSON may have any amount of white space between its tokens
        value = json.loads(answer)
        assert set(value) == {"name", "age"}
        assert value["name"] in ("fox", "dog") and 0 <= value["age"] <= 99
        break
    else:
        raise AssertionError("no answer came to its end")


def test_a_mask_serves_one_answer() -> None:
    pytest.importorskip("llguidance")
    mask = schema_mask(SCHEMA)
    logits = np.zeros(300, np.float32)
    first = mask(np.array([], np.int64), logits)
    brace = TOKENIZER.encode("{")[0]
    assert first[brace] and not first[TOKENIZER.encode("[")[0]] and not first[2]
    mask(np.array([brace]), logits)
    with pytest.raises(BadInput, match="one mask serves one answer"):
        mask(np.array([], np.int64), logits)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "is an object"),
        ("[" * 100_000, "is not JSON"),
        ('{"type": "' + "x" * 1_000_000 + '"}', "at most"),
        ({"type": "no such type"}, "cannot be used"),
        ({"$ref": "#/definitions/missing"}, "cannot be used"),
        ({"type": "string", "pattern": "("}, "cannot be used"),
    ],
)
def test_schemas_that_are_refused(schema: Any, words: str) -> None:
    pytest.importorskip("llguidance")
    with pytest.raises(UsageError, match=words):
        schema_mask(schema)
