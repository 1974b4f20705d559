"""How a model writes calls comes from its own chat template; calls are read however the text is
cut.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from tool_templates import HERMES, LLAMA, MISTRAL, XML

from featherweight.base.errors import UsageError
from featherweight.inference import ChatTokenizer
from featherweight.inference.text.tool_calls import (
    BareCalls,
    CallFormat,
    CallParser,
    CallPart,
    Function,
)

WEATHER = Function("weather", {"properties": {"city": {"enum": ["Rome", "Oslo"]}}})


def tokenizer_with(template: str | None) -> ChatTokenizer:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return ChatTokenizer.of(tokenizer)


FORMATS = {
    "hermes": CallFormat.of(tokenizer_with(HERMES)),
    "llama": CallFormat.of(tokenizer_with(LLAMA)),
    "mistral": CallFormat.of(tokenizer_with(MISTRAL)),
}


def test_formats_of_families() -> None:
    hermes = FORMATS["hermes"]
    assert hermes.begin == hermes.shown_begin == '<tool_call>\n{"name": "'
    assert hermes.middle == '", "arguments": '
    assert hermes.end == "}\n</tool_call>"
    assert hermes.call_separator == '}\n</tool_call>\n<tool_call>\n{"name": "'
    assert hermes.is_parallel
    llama = FORMATS["llama"]
    assert (llama.begin, llama.middle, llama.end) == ('{"name": "', '", "parameters": ', "}")
    assert not llama.is_parallel
    mistral = FORMATS["mistral"]
    assert mistral.begin == '<|endoftext|> [{"name": "'
    assert mistral.shown_begin == '[{"name": "'
    assert (mistral.call_separator, mistral.end) == ('}, {"name": "', "}]")


@pytest.mark.parametrize(
    ("template", "words"),
    [(None, "does not write tools"), (tiny.CHAT, "does not write tools"), (XML, "cannot be read")],
)
def test_templates_without_a_format(template: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CallFormat.of(tokenizer_with(template))


def read(
    format: CallFormat, pieces: list[str], bare: BareCalls | None = None
) -> tuple[str, list[tuple[str, str]]]:
    """The content, and the calls as names and arguments."""
    parser = CallParser(format, bare)
    content, calls = "", list[tuple[str, str]]()
    for number, piece in enumerate(pieces):
        for part in parser.push(piece, number == len(pieces) - 1):
            if part.call is None:
                content += part.text
            elif part.name is not None:
                calls.append((part.name, ""))
            else:
                name, arguments = calls[part.call]
                calls[part.call] = (name, arguments + part.text)
    return content, calls


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('{}[]"\\</tool_call>\n é', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from(["", "Let me look.", "a < b", "{"]),
    st.lists(st.dictionaries(st.text('"}{', max_size=3), NESTED, max_size=3), max_size=3),
    st.data(),
)
def test_calls_are_read_however_the_text_is_cut(
    name: str, content: str, all_arguments: list[dict[str, Any]], data: st.DataObject
) -> None:
    format = FORMATS[name]
    arguments_texts = [json.dumps(arguments) for arguments in all_arguments]
    if not format.is_parallel:
        arguments_texts = arguments_texts[:1]
    text = content
    for number, arguments in enumerate(arguments_texts):
        text += format.call_separator if number else f"\n{format.shown_begin}"
        text += f"f{number}{format.middle}{arguments}"
    text += format.end if arguments_texts else ""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    expected_calls = [(f"f{number}", text) for number, text in enumerate(arguments_texts)]
    assert read(format, pieces) == (content, expected_calls)


BARE = {
    '{"name": "weather", "arguments": {"city": "Oslo"}}': True,
    '```json\n{\n  "name": "weather",\n  "arguments": {"city": "Oslo"}\n}\n```': True,
    '```\n{"name": "weather", "arguments": {"city": "Oslo"}}\n```': True,
    '{"name":"weather","arguments":{"city": "Oslo"}}': True,
    '{"name": "sun", "arguments": {"city": "Oslo"}}': False,
    '{"name": "weather"}': False,
    '{"name": "Ada", "age": 36}': False,
    'Say {"name": "weather", "arguments": {"city": "Oslo"}}': False,
    '```json\n{"city": "Oslo"}\n```': False,
    "```python\nprint(1)\n```": False,
}


@given(st.sampled_from(sorted(BARE)), st.data())
def test_calls_without_marks(text: str, data: st.DataObject) -> None:
    """They are calls only as a whole answer, and for a function that was offered."""
    bare = BareCalls.of(FORMATS["hermes"], ["weather", "now"])
    assert bare is not None
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    calls = [("weather", '{"city": "Oslo"}')] if BARE[text] else []
    assert read(FORMATS["hermes"], pieces, bare) == ("" if calls else text, calls)


def test_formats_that_have_no_marks() -> None:
    assert BareCalls.of(FORMATS["llama"], ["weather"]) is None


@pytest.mark.parametrize("text", sorted(BARE))
def test_grammars_of_calls_without_marks(text: str) -> None:
    pytest.importorskip("llguidance")
    from featherweight.inference.text.grammars import Grammars

    tokenizer = tokenizer_with(None)
    mask = Grammars(tokenizer, 300).calls(
        FORMATS["hermes"], [WEATHER, Function("now", {})], is_required=False, is_parallel=True
    )
    assert follows(mask.copy(), [*tokenizer.encode_plain(text), 2])
    # Arguments follow the schema where the answer is a call.
    other = text.replace("Oslo", "Paris")
    assert follows(mask.copy(), [*tokenizer.encode_plain(other), 2]) == (not BARE[text])


def test_content_comes_as_soon_as_it_is_certain() -> None:
    parser = CallParser(FORMATS["hermes"])
    assert parser.push("Let ") == [CallPart(None, "Let")]
    assert parser.push("me <tool") == [CallPart(None, " me")]
    assert parser.push("box> ") == [CallPart(None, " <toolbox>")]
    assert parser.push("", is_final=True) == [CallPart(None, " ")]


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("is_required", [False, True])
def test_grammars_allow_what_templates_write(name: str, is_required: bool) -> None:
    pytest.importorskip("llguidance")
    from featherweight.inference.text.grammars import Grammars

    format, tokenizer = FORMATS[name], tokenizer_with(None)
    mask = Grammars(tokenizer, 300).calls(
        format,
        [WEATHER, Function("now", {})],
        is_required=is_required,
        is_parallel=format.is_parallel,
    )
    call = f'{format.begin}weather{format.middle}{{"city": "Oslo"}}'
    if format.is_parallel:
        call += f"{format.call_separator}now{format.middle}{{}}"
    texts = {call + format.end: True, call.replace("Oslo", "Paris") + format.end: False}
    texts[f"Hello. {call}{format.end}"] = texts["Hello."] = not is_required
    for text, is_allowed in texts.items():
        assert follows(mask.copy(), [*tokenizer.encode_plain(text), 2]) == is_allowed, text


def follows(mask: Any, ids: list[int]) -> bool:
    logits = np.zeros(300, np.float32)
    return all(mask(np.array(ids[:place], np.int64), logits)[id] for place, id in enumerate(ids))


def test_parameters_that_are_no_object(tmp_path: Path) -> None:
    assert Function("f", {}).schema() == {"type": "object"}
    with pytest.raises(UsageError, match="type object"):
        Function("f", {"type": "string"}).schema()
