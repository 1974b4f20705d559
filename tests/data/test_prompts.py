"""The prompts of the free-running check, and the checks of form."""

from __future__ import annotations

from collections import Counter

import pytest

from featherweight.base.errors import UsageError
from featherweight.data.prompts import FORMS, NUM_PROMPTS, load_prompts


def test_every_beginning_has_several_kinds() -> None:
    prompts = load_prompts(NUM_PROMPTS)
    assert len({(prompt.turns, prompt.text) for prompt in prompts}) == NUM_PROMPTS
    kinds = {"question", "format", "prose", "code", "list", "conversation", "language"}
    assert set(Counter(prompt.kind for prompt in prompts)) == kinds
    assert {prompt.kind for prompt in load_prompts(20)} == kinds
    assert load_prompts(20) == prompts[:20] and load_prompts(0) == []
    with pytest.raises(UsageError, match="there are 100"):
        load_prompts(101)


def test_a_prompt_is_a_conversation_or_a_text() -> None:
    for prompt in load_prompts(NUM_PROMPTS):
        assert bool(prompt.turns) != bool(prompt.text)
        assert (prompt.form is not None) == (prompt.kind == "format")
        assert prompt.form is None or prompt.form in FORMS
        # Each form is one that an empty answer does not have.
        assert prompt.form is None or not prompt.has_form("") or prompt.form.endswith("no_comma")
        if prompt.turns:
            roles = [message["role"] for message in prompt.messages]
            assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))]
            assert roles[-1] == "user" and prompt.plain_text.endswith("\nAnswer:")
        else:
            assert prompt.plain_text == prompt.text and not prompt.messages


OBJECT = '{"name": "Anna", "age": 30}'


@pytest.mark.parametrize(
    ("form", "arguments", "good", "bad"),
    [
        (
            "number",
            {},
            ["12", " 1,234.5\n", "**1914**", "-3."],
            ["12 days", "twelve", "7 + 5 = 12"],
        ),
        ("word", {}, ["Cold.", '"cold"', "don't"], ["It is cold.", "", "hot cold"]),
        ("first_yes_no", {}, ["Yes.", "**No**, they cannot."], ["Nobody knows", "I think yes"]),
        ("choice", {"options": ["A", "B"]}, ["A", " b)", "(B)"], ["A or B", "C", "A wood"]),
        (
            "items",
            {"count": 2},
            ["- a\n- b", "Here:\n\n1. a\n 2) b"],
            ["- a", "a\nb", "1. a\n2. b\n3. c"],
        ),
        (
            "json",
            {"keys": ["name", "age"]},
            [OBJECT, f"```json\n{OBJECT}\n```", f"Here it is:\n```\n{OBJECT}\n```\nDone."],
            ['{"name": "Anna"}', OBJECT[:-1], "name: Anna, age: 30", f"{OBJECT} is JSON"],
        ),
        (
            "code_block",
            {},
            ["```\nx\n```", "So:\n```py\nx = 1\n```\nbye"],
            ["x = 1", "```\n```", "```py\nx"],
        ),
    ],
)
def test_forms(form: str, arguments: dict, good: list[str], bad: list[str]) -> None:
    for answer in good:
        assert FORMS[form](answer, **arguments), answer
    for answer in bad:
        assert not FORMS[form](answer, **arguments), answer
