"""What may be spoken: checks on text before any model sees it."""

from __future__ import annotations

import re

from mars5.errors import TextError

MAX_CHARACTERS = 5_000

# Unicode categories Cc and Cs, but for tab and line ends.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def check_speakable(
    text: str, what: str = "text", max_characters: int | None = MAX_CHARACTERS
) -> str:
    """Return `text` unchanged if it can be spoken.

    Args:
        what: the name used in messages, such as "ref_transcript".
        max_characters: the longest text that is accepted; None accepts any length.

    Raises:
        TextError: not a string, empty, without a letter or digit, longer than `max_characters`,
            or holding control characters or lone surrogates.
    """
    if isinstance(text, str) and max_characters is not None and len(text) > max_characters:
        raise TextError(
            f"{what} has {len(text)} characters, at most {max_characters} are spoken in one call: "
            "split it into sentences"
        )
    check_characters(text, what)
    if not has_speech(text):
        shown = text if len(text) <= 40 else text[:40] + "..."
        raise TextError(f"{what} {shown!r} has no letter or digit: there is nothing to say")
    return text


def check_characters(text: str, what: str = "text") -> str:
    """Return `text` unchanged if it is a string that holds nothing unprintable.

    Raises:
        TextError: not a string, or holding control characters or lone surrogates.
    """
    if not isinstance(text, str):
        raise TextError(f"{what} must be a string, got {type(text).__name__}")
    found = _UNPRINTABLE.search(text)
    if found is not None:
        raise TextError(
            f"{what} holds the control character U+{ord(found[0]):04X} at position "
            f"{found.start()}: remove it"
        )
    return text


def has_speech(text: str) -> bool:
    """Whether any letter or digit is in `text`."""
    return any(character.isalnum() for character in text)
