"""Which writings of numbers are the same words, and which are not."""

# ruff: noqa: RUF001 (characters that look alike are what is tested)

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mars5.eval.text import word_errors, words_of

for needed in ("whisper_normalizer", "rapidfuzz"):
    pytest.importorskip(needed, reason="needs the extra: pip install 'mars5[eval]'")


PAGE = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.+`) \| `(.+)` \|$", PAGE.split("## What counts")[1], re.MULTILINE)
assert ROWS  # pytest would skip a test without cases


@pytest.mark.parametrize(("writings", "word"), ROWS)
def test_the_table_in_the_docs(writings: str, word: str) -> None:
    found = [" ".join(words_of(writing)) for writing in re.findall("`(.+?)`", writings)]
    assert found == [word] * len(found)


@pytest.mark.parametrize(
    "writings",
    [
        ["at eight thirty p.m.", "at 8:30 pm", "At 8.30 P.M.", "at 8 30 p m"],
        ["one thirty", "1:30", "1.30"],
        ["eight oh five", "8:05"],
        ["eight p.m.", "8:00 p.m.", "8 PM", "8pm"],
        ["eight o'clock", "8:00", "8 o'clock"],
        ["fifteen hundred", "15:00"],
        ["five five five, zero one four two", "555-0142", "555 0142", "5550142"],
        ["one, eight zero zero, five", "1-800-5"],
        ["zero zero seven", "007"],
        ["ten to fifteen percent", "10-15%", "10–15%", "10 to 15%"],
        ["a two to one win", "a 2-1 win", "a 2 to 1 win"],
        ["five, six and seven", "5, 6 and 7"],
        ["minus five degrees", "-5 degrees"],
        ["twenty four dollars and fifty cents", "$24.50", "24 dollars and 50 cents"],
        ["three point five", "3.5"],
    ],
    ids=lambda writings: writings[0],
)
def test_writings_of_the_same_numbers(writings: list[str]) -> None:
    first, *others = (words_of(f"Now {writing}, they say") for writing in writings)
    assert len(first) > 3
    assert all(other == first for other in others)


def test_long_lists_of_numbers_are_one_word_however_they_are_written() -> None:
    digits = "".join(str(number) for number in range(1, 3000))
    assert words_of("Count: " + ", ".join(map(str, range(1, 3000)))) == ["count", digits]


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("8:30", "8:13", 1),
        ("8:30", "8:30 pm", 1),
        ("8 am", "8 pm", 1),
        ("eight o'clock", "eight", 2),
        ("555-1234", "555-1243", 1),
        ("10 to 15", "10 and 15", 3),
        ("ten to the dozen", "ten dozen", 2),
        ("three point five", "35", 1),
        ("version 2.1", "version 21", 2),
        ("0.05", "5", 1),
        ("minus five", "five", 1),
        ("$24.50", "24.50", 1),
        ("$24.50", "$24.15", 1),
        ("ten percent", "ten", 1),
        ("thirteen", "thirty", 1),
    ],
)
def test_other_numbers_are_other_words(said: str, heard: str, errors: int) -> None:
    assert word_errors(words_of(said), words_of(heard)) == errors
