"""The checks of IFEval's instructions: each says whether a text follows one instruction.

A check takes the answer and the instruction's arguments, under the names that the data set gives
them. `relation` is "at least" or "less than".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

Check = Callable[..., bool]

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
DIVIDER = re.compile(r"\s?\*\*\*\s?")
SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")


def _compare(count: int, relation: str, limit: int) -> bool:
    if relation not in ("at least", "less than"):
        raise ValueError(f"relation {relation!r} is neither 'at least' nor 'less than'")
    return count >= limit if relation == "at least" else count < limit


def _no_comma(answer: str) -> bool:
    return "," not in answer


def _number_words(answer: str, relation: str, num_words: int) -> bool:
    return _compare(len(re.findall(r"\w+", answer)), relation, num_words)


def _number_sentences(answer: str, relation: str, num_sentences: int) -> bool:
    sentences = [s for s in SENTENCE_END.split(answer) if re.search(r"\w", s)]
    return _compare(len(sentences), relation, num_sentences)


def _number_paragraphs(answer: str, num_paragraphs: int) -> bool:
    paragraphs = [paragraph.strip() for paragraph in DIVIDER.split(answer)]
    if not all(paragraphs[1:-1]):
        return False
    return sum(map(bool, paragraphs)) == num_paragraphs


def _nth_paragraph_first_word(
    answer: str, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    paragraphs = [p.strip() for p in re.split(r"\n\n", answer) if p.strip()]
    if len(paragraphs) != num_paragraphs or nth_paragraph > len(paragraphs):
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'\"")
    return re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def _existence(answer: str, keywords: Sequence[str]) -> bool:
    return all(keyword.lower() in answer.lower() for keyword in keywords)


def _frequency(answer: str, relation: str, keyword: str, frequency: int) -> bool:
    return _compare(answer.lower().count(keyword.strip().lower()), relation, frequency)


def _forbidden_words(answer: str, forbidden_words: Sequence[str]) -> bool:
    return not any(
        re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE) for word in forbidden_words
    )


def _letter_frequency(answer: str, let_relation: str, letter: str, let_frequency: int) -> bool:
    return _compare(answer.lower().count(letter.lower()), let_relation, let_frequency)


def _number_placeholders(answer: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[[^\n]*?\]", answer)) >= num_placeholders


def _postscript(answer: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip().lower()
    # "P.S." may be written with spaces and without the last stop.
    letters = [re.escape(letter) for letter in re.sub(r"[.\s]", "", marker)]
    pattern = r"\.?\s?".join(letters) if set(marker) & {"."} else re.escape(marker)
    return re.search(rf"^\s*{pattern}", answer.lower(), re.MULTILINE) is not None or (
        re.search(rf"\s{pattern}", answer.lower()) is not None
    )


def _bullet_lists(answer: str, num_bullets: int) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*]|-).*$", answer, re.MULTILINE)) == num_bullets


def _constrained_response(answer: str) -> bool:
    return any(option in answer for option in OPTIONS)


def _highlights(answer: str, num_highlights: int) -> bool:
    italics = [text.strip("*").strip() for text in re.findall(r"\*[^\n*]*\*", answer)]
    bolds = [text.strip("*").strip() for text in re.findall(r"\*\*[^\n*]*\*\*", answer)]
    return sum(map(bool, italics + bolds)) >= num_highlights


def _multiple_sections(answer: str, section_spliter: str, num_sections: int) -> bool:
    marks = re.findall(rf"\s?{re.escape(section_spliter.strip())}\s?\d+\s?", answer)
    return len(marks) >= num_sections


def _json_format(answer: str) -> bool:
    text = answer.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(answer: str) -> bool:
    titles = re.findall(r"<<([^\n]+?)>>", answer)
    return any(title.strip("<> ") for title in titles)


def _two_responses(answer: str) -> bool:
    responses = answer.split("******")
    texts = [text.strip() for text in responses]
    if not all(texts[1:-1]):
        return False
    texts = [text for text in texts if text]
    return len(texts) == 2 and texts[0] != texts[1]


def _repeat_prompt(answer: str, prompt_to_repeat: str) -> bool:
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end_phrase(answer: str, end_phrase: str) -> bool:
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quotation(answer: str) -> bool:
    text = answer.strip()
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


def _capital_word_frequency(answer: str, capital_relation: str, capital_frequency: int) -> bool:
    words = re.findall(r"\w[\w'-]*", answer)
    return _compare(sum(map(str.isupper, words)), capital_relation, capital_frequency)


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "change_case:capital_word_frequency": _capital_word_frequency,
        "change_case:english_capital": str.isupper,
        "change_case:english_lowercase": str.islower,
        "combination:repeat_prompt": _repeat_prompt,
        "combination:two_responses": _two_responses,
        "detectable_content:number_placeholders": _number_placeholders,
        "detectable_content:postscript": _postscript,
        "detectable_format:constrained_response": _constrained_response,
        "detectable_format:json_format": _json_format,
        "detectable_format:multiple_sections": _multiple_sections,
        "detectable_format:number_bullet_lists": _bullet_lists,
        "detectable_format:number_highlighted_sections": _highlights,
        "detectable_format:title": _title,
        "keywords:existence": _existence,
        "keywords:forbidden_words": _forbidden_words,
        "keywords:frequency": _frequency,
        "keywords:letter_frequency": _letter_frequency,
        "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
        "length_constraints:number_paragraphs": _number_paragraphs,
        "length_constraints:number_sentences": _number_sentences,
        "length_constraints:number_words": _number_words,
        "punctuation:no_comma": _no_comma,
        "startend:end_checker": _end_phrase,
        "startend:quotation": _quotation,
    }
)
