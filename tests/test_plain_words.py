"""Names in the source say what a value is: at most one binding in two hundred is a participle, an
adverb or the like.
"""

from pathlib import Path

import pytest
from tests import plain_words

LARGEST_SHARE = 0.005


def test_names_are_nouns_and_verbs():
    vague, total = plain_words.count(Path(__file__).parents[1] / "src")
    assert total > 5000
    assert sum(vague.values()) <= LARGEST_SHARE * total, vague.most_common(20)


@pytest.mark.parametrize("name", ["found", "_known", "left_over", "wantedOnce", "SHARED"])
def test_vague_names(name):
    assert plain_words.is_vague(name)


@pytest.mark.parametrize("name", ["scales", "matched_names", "num_found", "embedding", "seed", "_"])
def test_clear_names(name):
    assert not plain_words.is_vague(name)
