"""Token ids are those of transformers, for plain text and through chat templates; errors name the
broken file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import processors
from transformers import AutoTokenizer

from featherweight.base.errors import BadInput, UsageError
from featherweight.inference.text.tokenizer import ChatTokenizer

# The template of SmolLM2-Instruct, and one with the features that newer families use.
SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FEATURES = """{{ bos_token }}
{%- set ns = namespace(count=0) %}
    {%- for message in messages %}
    {%- set ns.count = ns.count + 1 %}
    {% if message.role == 'robot' %}{{ raise_exception('no robots: ' + message.role) }}{% endif %}
    {% if message.role == 'nobody' %}{% continue %}{% endif %}
    {% generation %}
[{{ ns.count }} {{ message.role }}] {{ message | tojson }} {{ message.content | trim }}
{{- eos_token }}
    {% endgeneration %}
{% endfor %}
{% if strftime_now('%Y') | length == 4 and tools is none %}year{% endif %}
{% if add_generation_prompt %}[assistant]{% endif %}
"""
TALK = [
    {"role": "system", "content": "Be brief & <kind>."},
    {"role": "user", "content": '  Was heißt "feather"? 羽 🪶\n'},
    {"role": "assistant", "content": "Feder."},
    {"role": "user", "content": "<|im_end|>And 1905?"},
]


def folder_of(tmp_path: Path, template: str | None = tiny.CHAT, bos: bool = False) -> Path:
    tokenizer = tiny.tokenizer()
    if bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A",
            pair="<|im_start|> $A $B",
            special_tokens=[("<|im_start|>", 1)],
        )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    return tmp_path


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", [SMOLLM, FEATURES, tiny.CHAT])
def test_ids_are_those_of_transformers(template: str, bos: bool, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, template, bos)
    transformers_tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer = ChatTokenizer.open(folder)
    for messages in (TALK, TALK[1:2]):
        reference = transformers_tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        assert tokenizer.chat(messages) == list(getattr(reference, "input_ids", reference))
    for text in ("", "The fox", " x\n\n", "naïve 羽🪶<|im_end|>y"):
        ids = transformers_tokenizer(text).input_ids
        assert tokenizer.encode(text) == ids
        reference = transformers_tokenizer.decode(ids, skip_special_tokens=True)
        assert tokenizer.decode(ids) == reference
    assert tokenizer.vocab_size == len(transformers_tokenizer)
    assert tokenizer.has_template


def test_a_template_inside_the_configuration_and_named_ones(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, None)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for template in (
        SMOLLM,
        [{"name": "tool_use", "template": "no"}, {"name": "default", "template": SMOLLM}],
    ):
        (folder / "tokenizer_config.json").write_text(
            json.dumps(settings | {"chat_template": template})
        )
        reference = AutoTokenizer.from_pretrained(folder).apply_chat_template(
            TALK, add_generation_prompt=True
        )
        ids = list(getattr(reference, "input_ids", reference))
        assert ChatTokenizer.open(folder).chat(TALK) == ids


def test_without_a_template_the_turns_are_plain_text(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.open(folder_of(tmp_path, None))
    assert not tokenizer.has_template
    assert tokenizer.chat(TALK[2:]) == tokenizer.encode("Feder.\n<|im_end|>And 1905?")


def test_end_tokens(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    assert ChatTokenizer.open(folder).end_ids == {0, 2}
    (folder / "generation_config.json").write_text('{"eos_token_id": 7}')
    (folder / "config.json").unlink()
    assert ChatTokenizer.open(folder).end_ids == {2, 7}
    (folder / "generation_config.json").write_text('{"eos_token_id": "<|im_end|>"}')
    with pytest.raises(BadInput, match="eos_token_id"):
        ChatTokenizer.open(folder)


def test_one_token(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.open(folder_of(tmp_path))
    assert tokenizer.token_text(2) == "<|im_end|>"
    first_id = tokenizer.encode("é")[0]
    assert tokenizer.token_text(first_id) == "\ufffd"
    assert tokenizer.decode([1, *tokenizer.encode("é"), 2]) == "é"
    assert tokenizer.decode([100_000]) == ""


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "empty"),
        ([{"role": "user"}], "message 0"),
        ([{"content": "x"}], "message 0"),
        ([{"role": "robot", "content": "x"}], "no robots: robot"),
    ],
)
def test_messages_that_are_refused(
    messages: list[dict[str, Any]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        ChatTokenizer.open(folder_of(tmp_path, FEATURES)).chat(messages)


def test_broken_unicode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not valid Unicode.*character 3"):
        ChatTokenizer.open(folder_of(tmp_path)).encode("abc\ud800")


def test_a_template_is_kept_in_its_sandbox(tmp_path: Path) -> None:
    for template in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
    ):
        tokenizer = ChatTokenizer.open(folder_of(tmp_path, template))
        with pytest.raises(UsageError, match="refuses"):
            tokenizer.chat(TALK)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", b"{", "tokenizer.json cannot be read"),
        ("tokenizer.json", b"\xff\xfe", "tokenizer.json cannot be read"),
        ("tokenizer_config.json", b"[]", "tokenizer_config.json"),
        ("tokenizer_config.json", b"nonsense", "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", b'{"chat_template": 3}', "chat_template is not text"),
        ("chat_template.jinja", b"{% if %}", "chat template"),
        ("config.json", b"{", "config.json is not JSON"),
    ],
)
def test_broken_files_are_named(
    file: str, content: bytes | None, words: str, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path)
    if file == "tokenizer_config.json":
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(BadInput, match=words):
        ChatTokenizer.open(folder)


def test_no_torch(tmp_path: Path) -> None:
    """Text, sampling, streams and generation leave torch and transformers alone."""
    code = (
        "import sys\nfrom featherweight.inference import ChatTokenizer, TextStream, generate\n"
        "from featherweight.base.sampling import Sampling\n"
        "from featherweight.ops.sampling import Sampler\n"
        f"tokenizer = ChatTokenizer.open({str(folder_of(tmp_path))!r})\n"
        "tokenizer.chat([{'role': 'user', 'content': 'x'}])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
