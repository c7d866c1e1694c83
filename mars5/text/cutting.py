"""Long sentences cut where a speaker would take a breath."""

# ruff: noqa: RUF001 (its business are characters that look alike)

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate

CHARACTERS_PER_SECOND = 15.0
"""Estimated speaking rate of running text; English is read at 14 to 16 characters a second."""

_SECONDS = {"W": 0.25, "F": 0.25}  # one wide character (Chinese, Japanese, Korean) is a syllable
_SECONDS_OF_DIGIT = 0.35  # said as a word

CLAUSE_PAUSE = 0.2
"""Seconds after a piece that was cut behind punctuation inside a sentence."""

WORD_PAUSE = 0.05
"""Seconds after a piece that was cut between two words without punctuation."""

_CONJUNCTIONS = (
    "and|but|or|nor|so|yet|because|although|though|while|whereas|when|where|which|who|that|if|"
    "unless|until|since|after|before|as|than|then"
)
_PLACES = re.compile(
    r"(?P<strong>[;:—–。！？؛][\"'”’»)\]]{0,4}\s?|\s[-–—]\s)"
    r"|(?P<comma>[,，、،][\"'”’»)\]]{0,4}(?:\s|(?<=[，、،])))"
    rf"|(?P<conjunction>\s(?=(?:{_CONJUNCTIONS})\s))"
    r"|(?P<digits>(?<=[0-9])\s(?=[0-9]))"
    r"|(?P<blank>\s)",
    re.IGNORECASE,
)
_RANKS = {"strong": 8, "comma": 6, "conjunction": 4, "blank": 2, "digits": 1}
_INSIDE = 0.1  # of the rank is left inside quotes and brackets: any place outside is better
_OPEN_TO_CLOSED = {"“": "”", "«": "»", "(": ")", "[": "]", "{": "}", "「": "」", "（": "）"}
_SHORTEST = 0.25  # of the longest: no piece of a cut sentence is shorter


def seconds_of(text: str) -> float:
    """How long `text` will take to say, estimated from its characters."""
    if not text.isascii():
        return sum(map(_seconds_of_character, text))
    digits = sum(map(text.count, "0123456789"))
    return digits * _SECONDS_OF_DIGIT + (len(text) - digits) / CHARACTERS_PER_SECOND


def cut(text: str, max_characters: int, max_seconds: float) -> Iterator[tuple[str, float]]:
    """`text` in parts within both limits, each with the pause after it; 0.0 after the last.

    The parts are of similar length. A part ends, best first: behind a semicolon, colon or dash;
    behind a comma; before a conjunction; between words; inside a word if it alone is too long.
    A quotation that fits into one part is cut only if there is nowhere else to cut.
    """
    if _fits(text, max_characters, max_seconds):
        yield text, 0.0
        return
    # Seconds and characters become one measure: a part may cost up to 1.
    costs = [max(_seconds_of_character(c) / max_seconds, 1 / max_characters) for c in text]
    spent = [0.0, *accumulate(costs)]
    places = _places(text, spent)
    positions = [position for position, _ in places]
    start = 0
    while spent[-1] - spent[start] > 1 + 1e-9:
        end, rank = _best(text, places, positions, spent, start)
        part = text[start:end].strip()
        yield part, CLAUSE_PAUSE if _is_punctuated(part) else WORD_PAUSE if rank else 0.0
        start = end + text[end].isspace()
    yield text[start:].strip(), 0.0


def _fits(text: str, max_characters: int, max_seconds: float) -> bool:
    return len(text) <= max_characters and seconds_of(text) <= max_seconds


def _seconds_of_character(character: str) -> float:
    if character.isdigit():
        return _SECONDS_OF_DIGIT
    if character.isascii():
        return 1 / CHARACTERS_PER_SECOND
    return _SECONDS.get(unicodedata.east_asian_width(character), 1 / CHARACTERS_PER_SECOND)


def _is_punctuated(part: str) -> bool:
    """Whether `part` ends in punctuation."""
    return not part[-1:].isalnum()


def _places(text: str, spent: list[float]) -> list[tuple[int, float]]:
    """(position, rank) of all places to cut `text` between words."""
    spans = _quotations(text, spent)
    starts = [start for start, _ in spans]
    found = []
    for place in _PLACES.finditer(text):
        at = place.end() - place[0][-1].isspace()
        last = bisect_right(starts, place.start()) - 1
        inside = last >= 0 and place.start() < spans[last][1]
        found.append((at, _RANKS[place.lastgroup or ""] * (_INSIDE if inside else 1.0)))
    return found


def _quotations(text: str, spent: list[float]) -> list[tuple[int, int]]:
    """(start, end) of outermost quotations and brackets short enough for one part."""
    spans: list[tuple[int, int]] = []
    opened = [at for at, character in enumerate(text) if character in _OPEN_TO_CLOSED]
    closings = {
        closed: [at for at, character in enumerate(text) if character == closed]
        for closed in _OPEN_TO_CLOSED.values()
    }
    straight = [at for at, character in enumerate(text) if character == '"']
    pairs = list(zip(straight[::2], straight[1::2], strict=False))
    for start in opened:
        ends = closings[_OPEN_TO_CLOSED[text[start]]]
        after = bisect_left(ends, start)
        if after < len(ends):
            pairs.append((start, ends[after]))
    for start, end in sorted(pairs):
        if spent[end + 1] - spent[start] <= 1 and (not spans or start >= spans[-1][1]):
            spans.append((start, end))
    return spans


def _best(
    text: str, places: list[tuple[int, float]], positions: list[int], spent: list[float], start: int
) -> tuple[int, float]:
    """(position, rank) of the best place for the part that begins at `start`."""
    left = spent[-1] - spent[start]
    ideal = spent[start] + left / -(-left // 1)
    low = bisect_left(spent, spent[start] + _SHORTEST)
    high = bisect_right(spent, spent[start] + 1 + 1e-9) - 1
    window = places[bisect_left(positions, low) : bisect_right(positions, high)]
    if window:
        return max(window, key=lambda place: (place[1], -abs(spent[place[0]] - ideal)))
    end = max(high, start + 1)
    while end - 1 > start and unicodedata.combining(text[end]):
        end -= 1
    return end, 0
