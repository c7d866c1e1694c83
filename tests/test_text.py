"""What may be spoken; rows of the table of faults in the names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars5.errors import TextError
from mars5.text import MAX_CHARACTERS, check_speakable


@pytest.mark.parametrize(
    "text",
    ["a", "7", " spaced\tout\r\n", "naïve café", "Grüße", "字", "שלום", "हिन्दी", "x²", "😀 yes",
     "<|endoftext|>"],
)  # fmt: skip
def test_speakable_text_comes_back_unchanged(text: str) -> None:
    assert check_speakable(text) is text


@pytest.mark.parametrize("text", ["", " ", "\n\t\r", "...", "—", "😀", "\u200b\u200d", "\u0301"])
def test_nothing_to_say(text: str) -> None:
    with pytest.raises(TextError, match=r"^text .* has no letter or digit"):
        check_speakable(text)


def test_a_long_text_of_nothing_is_shown_in_part() -> None:
    with pytest.raises(TextError) as caught:
        check_speakable("?" * 1000)
    assert len(str(caught.value)) < 150


def test_length() -> None:
    assert check_speakable("a" * MAX_CHARACTERS)
    with pytest.raises(TextError, match=r"text has 5001 characters, at most 5000 .*: split it"):
        check_speakable("a" * (MAX_CHARACTERS + 1))
    with pytest.raises(TextError, match="text has 100000 characters"):
        check_speakable("?" * 100_000)


@pytest.mark.parametrize("number", [*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F, 0x85, 0xD800])
def test_control_characters(number: int) -> None:
    wanted = f"text holds the control character U\\+{number:04X} at position 3: remove it"
    with pytest.raises(TextError, match=wanted):
        check_speakable(f"abc{chr(number)}")


def test_messages_name_what_was_checked() -> None:
    for bad in ("", "\0", "x" * 9999, 5):
        with pytest.raises(TextError, match=r"^ref_transcript "):
            check_speakable(bad, "ref_transcript")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, b"a", 1, ["a"], object()])
def test_only_strings(value: Any) -> None:
    with pytest.raises(TextError, match=f"text must be a string, got {type(value).__name__}"):
        check_speakable(value)


@settings(deadline=None)
@given(st.text(st.characters(), max_size=50))
def test_any_string_is_spoken_or_refused_with_a_text_error(text: str) -> None:
    try:
        assert check_speakable(text) == text
        text.encode()  # what passes has no lone surrogates
    except TextError as error:
        str(error).encode()  # and what is told of the rest can be printed
