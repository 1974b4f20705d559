"""Every check of IFEval: an answer that follows the instruction, and a near one that does not."""

from __future__ import annotations

import pytest

from featherweight.data.tasks import IFEval
from featherweight.data.tasks.instructions import CHECKS

CASES = {
    "change_case:capital_word_frequency": (
        {"capital_relation": "at least", "capital_frequency": 2},
        "I SAID no",
        "I said no",
    ),
    "change_case:english_capital": ({}, "ALL 3 OF THEM!", "ALL 3 OF them!"),
    "change_case:english_lowercase": ({}, "all 3 of them!", "All 3 of them!"),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say it. "}, "Say it.\nIt.", "It. Say it."),
    "combination:two_responses": ({}, "One.\n******\nTwo.", "One.\n******\nOne."),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "[a] and [b]", "[a] and b"),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Yes.\nP. S. No", "Yes. PC"),
    "detectable_format:constrained_response": ({}, "My answer is maybe.", "My answer is perhaps."),
    "detectable_format:json_format": ({}, '```json\n{"a": 1}\n```', "{a: 1}"),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1\na\nSection b",
    ),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* a\n- b", "* a\n**b**\nc"),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        "*one* and *two*",
        "*one* and * *",
    ),
    "detectable_format:title": ({}, "<<A title>>\ntext", "<<>>\n<A title>"),
    "keywords:existence": ({"keywords": ["fog", "sun"]}, "Fog, then sun", "Fog"),
    "keywords:forbidden_words": ({"forbidden_words": ["rock"]}, "rocket", "a Rock"),
    "keywords:frequency": (
        {"relation": "at least", "keyword": "fog", "frequency": 2},
        "fog and fog",
        "fog",
    ),
    "keywords:letter_frequency": (
        {"let_relation": "less than", "letter": "e", "let_frequency": 2},
        "els",
        "Eel",
    ),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "fog"},
        "Sun.\n\nFog, then.",
        "Fog.\n\nSun.",
    ),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "a\n***\nb\n***\n", "a\n\nb"),
    "length_constraints:number_sentences": (
        {"relation": "less than", "num_sentences": 3},
        "One costs 1.5 euros. Two!",
        'One. "Two!" Three',
    ),
    "length_constraints:number_words": (
        {"relation": "at least", "num_words": 3},
        "one, two three",
        "one, two -",
    ),
    "punctuation:no_comma": ({}, "one two", "one, two"),
    "startend:end_checker": ({"end_phrase": "The end."}, 'Yes. the end."', "The end. Yes."),
    "startend:quotation": ({}, '"yes"', '"yes" no'),
}


def test_every_check_has_a_case() -> None:
    assert set(CASES) == set(CHECKS)


@pytest.mark.parametrize("name", sorted(CASES))
def test_checks(name: str) -> None:
    arguments, good, bad = CASES[name]
    assert CHECKS[name](good, **arguments)
    assert not CHECKS[name](bad, **arguments)


def test_what_cannot_be_verified_is_ungraded(tmp_path) -> None:
    example = {
        "prompt": "In French, please, and without commas.",
        "instructions": ["language:response_language", "punctuation:no_comma"],
        "arguments": [{"language": "fr"}, {}],
    }
    assert IFEval(tmp_path / "none").grade(example, "Oui") is None
