"""Words as they are compared: normalised on both sides, then counted by edit distance."""

from __future__ import annotations

from functools import cache
from typing import Any

from mars5.eval.extra import extra


@cache
def _normaliser() -> Any:
    with extra("the comparison of words"):
        from whisper_normalizer.english import EnglishTextNormalizer
    return EnglishTextNormalizer()


def words_of(text: str) -> list[str]:
    """The words of English `text`, free of choices of writing.

    Case and punctuation go; numbers, dates and money become digits; contractions are spelled out;
    British spelling becomes American; hesitations ("uh") go. This is the normaliser that was
    published with Whisper.

    Raises:
        MissingExtraError: the extra is not installed.
    """
    # The normaliser leaves some of the full stops of an ellipsis.
    words = (word.strip(".") for word in _normaliser()(text).split())
    return [word for word in words if word]


def word_errors(said: list[str], heard: list[str]) -> int:
    """Substitutions, insertions and deletions that turn `said` into `heard` (Levenshtein).

    Raises:
        MissingExtraError: the extra is not installed.
    """
    with extra("the comparison of words"):
        from rapidfuzz.distance import Levenshtein
    distance: int = Levenshtein.distance(said, heard)
    return distance
