"""Two transcripts: which words change, and where those are in the recording."""

from __future__ import annotations

import pytest

from mars5.errors import TextError
from mars5.text import rewriter
from mars5.transcripts import Change, changes, gap

SAID = "one two three four five"
TIMES = [(0.1, 0.3), (0.3, 0.5), (0.6, 0.8), (0.8, 1.0), (1.1, 1.4)]


@pytest.mark.parametrize(
    ("new", "found"),
    [
        ("one two six four five", [Change(2, 3, 2, 3)]),
        ("zero one two three four five", [Change(0, 0, 0, 1)]),
        ("one two three four five six seven", [Change(5, 5, 5, 7)]),
        ("one four five", [Change(1, 3, 1, 1)]),
        ("One, six three. FOUR!", [Change(1, 2, 1, 2), Change(4, 5, 4, 4)]),
        ("six two three four seven eight", [Change(0, 1, 0, 1), Change(4, 5, 4, 6)]),
    ],
)
def test_changed_words(new: str, found: list[Change]) -> None:
    assert changes(SAID, new) == found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("one, two", "one - two"),
        ("one - two \u2026", "One two."),
        ("I'm here", "I\u2019m here"),
        ("one two", "\u2018one\u2019 'two'"),
    ],
)
def test_punctuation_is_no_edit(old: str, new: str) -> None:
    with pytest.raises(TextError, match="nothing to edit"):
        changes(old, new)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("one - two - three", "one, six three", [Change(2, 3, 1, 2)]),
        ("one two three", "- one - six - three", [Change(1, 2, 3, 4)]),
        ("one - two - three", "one three", [Change(2, 3, 1, 1)]),
        ("one - two", "one six two", [Change(1, 1, 1, 2)]),
        ("one - two", "six one - two", [Change(0, 0, 0, 1)]),
        ("one two -", "one two - six", [Change(2, 2, 3, 4)]),
        ("one two three", "one six - seven three", [Change(1, 2, 1, 4)]),
    ],
)
def test_punctuation_between_blanks_counts_in_the_places(
    old: str, new: str, found: list[Change]
) -> None:
    assert changes(old, new) == found


def test_a_symbol_that_is_said_is_a_word() -> None:
    assert changes("one & two", "one and two") == [Change(1, 2, 1, 2)]
    assert changes("one two", "one + two") == [Change(1, 1, 1, 2)]
    assert changes("it cost $5 then", "it cost \u20ac5 then") == [Change(2, 3, 2, 3)]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("he is 24 now", "he is 25 now", [Change(2, 3, 2, 3)]),
        ("it cost $5 million in all", "it cost $6 million in all", [Change(2, 4, 2, 4)]),
        ("on March 3, we left", "on March 5, we left", [Change(1, 3, 1, 3)]),
        ("it weighs 1 kg now", "it weighs 2 kg now", [Change(2, 4, 2, 4)]),
        ("it weighs 1 kg now", "it weighs 1 kg again", [Change(4, 5, 4, 5)]),
        ("go to new york now", "go to new york city now", [Change(2, 4, 2, 5)]),
        ("one - two - three", "one, six three", [Change(2, 3, 1, 2)]),
    ],
)
def test_what_is_written_out_together_changes_together(
    old: str, new: str, found: list[Change]
) -> None:
    lexicon = {"new york": "the big apple", "new york city": "the city"}
    assert changes(old, new, rewriter(lexicon)) == found


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        (Change(2, 3, 2, 3), (0.6, 0.8)),  # replaced: the pauses stay
        (Change(2, 4, 2, 3), (0.6, 1.0)),
        (Change(2, 4, 2, 2), (0.6, 1.1)),  # left out: one of two pauses stays
        (Change(0, 1, 0, 0), (0.1, 0.3)),
        (Change(4, 5, 4, 4), (1.1, 1.4)),
        (Change(2, 2, 2, 3), (0.55, 0.55)),  # inserted: in the middle of the pause
        (Change(0, 0, 0, 1), (0.1, 0.1)),
        (Change(5, 5, 5, 6), (1.4, 1.4)),
    ],
)
def test_seconds_of_a_change(change: Change, seconds: tuple[float, float]) -> None:
    assert gap(change, TIMES) == pytest.approx(seconds)
