"""Words as they are compared: normalised on both sides, then counted by edit distance."""

# ruff: noqa: RUF001 (its business are characters that look alike)

from __future__ import annotations

import re
from functools import cache
from typing import Any

from mars5.eval.extra import extra

# Before the normaliser, which takes the zeros off "05" and parts "p.m." from "pm".
_HALF = re.compile(r"\b([ap])\.? ?m\b\.?", re.IGNORECASE)
_FULL_HOUR = re.compile(r"(?<![\d:.])(0?[1-9]|1[0-2]):00(?![\d:])( ?[ap]m)?", re.IGNORECASE)
_NEGATIVE = re.compile(r"(?<!\S)[-−](?=\d)")
_GROUPS = re.compile(r"(?<![\d$€£¢.,])\d+(?:[\s,:–-]+\d+){1,30}")  # it makes them an int

# After it, when spelled numbers are digits, too; 1 is "one", even in "one.30" and "2 one" (2.1).
_CLOCK = re.compile(r"(?<!\S)([1-9]\d?|one)\.(\d\d)(?![\d.])")
_RUN = re.compile(r"(?<!\S)(?:\d+|one\b)(?: to (?:\d+|one\b)| \d+)+")
_ZEROS = re.compile(r"(?<!\S)0+(?=\d)")


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

    Numbers that follow each other are one word of all their digits: "eight thirty", "8:30" and
    "8.30" are "830", "555-1234" is "5551234", and "10-15" is "ten to fifteen", without its "to".
    Money keeps its point, and so do decimals that cannot be a time ("3.5").

    So these differences are not heard: "two three" for "twenty-three" (the normaliser writes both
    as 23), "314" for "3.14", a lost "to" between numbers, zeros in front. It is the lesser evil:
    recognisers write the same speech in all these ways, and speech that is right would count as
    wrong far more often than such an error is made.

    Raises:
        MissingExtraError: the extra is not installed.
    """
    written = _normaliser()(_with_digits_joined(text))
    written = _RUN.sub(_joined, _CLOCK.sub(_joined, written))
    # The normaliser leaves some of the full stops of an ellipsis.
    words = (word.strip(".") for word in _ZEROS.sub("", written).split())
    return [word for word in words if word]


def _with_digits_joined(text: str) -> str:
    text = _FULL_HOUR.sub(_full_hour, _HALF.sub(r"\1m", text))
    return _GROUPS.sub(lambda m: re.sub(r"\D", "", m[0]), _NEGATIVE.sub("minus ", text))


def _full_hour(match: re.Match[str]) -> str:
    """ "8:00 pm" is said "eight p.m.", "8:00" is said "eight o'clock"."""
    return match[1] + (match[2] or " o'clock")


def _joined(match: re.Match[str]) -> str:
    return re.sub(r"\D", "", match[0].replace("one", "1"))


def word_errors(said: list[str], heard: list[str]) -> int:
    """Substitutions, insertions and deletions that turn `said` into `heard` (Levenshtein).

    Raises:
        MissingExtraError: the extra is not installed.
    """
    with extra("the comparison of words"):
        from rapidfuzz.distance import Levenshtein
    distance: int = Levenshtein.distance(said, heard)
    return distance
