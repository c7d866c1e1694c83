"""What may be spoken: checks on text before any model sees it."""

from __future__ import annotations

import unicodedata

from mars5.errors import TextError

MAX_CHARACTERS = 5_000


def check_speakable(text: str, what: str = "text") -> str:
    """Return `text` unchanged if it can be spoken.

    Args:
        what: the name used in messages, such as "ref_transcript".

    Raises:
        TextError: not a string, empty, without a letter or digit, longer than `MAX_CHARACTERS`,
            or holding control characters or lone surrogates.
    """
    if not isinstance(text, str):
        raise TextError(f"{what} must be a string, got {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise TextError(
            f"{what} has {len(text)} characters, at most {MAX_CHARACTERS} are spoken in one call: "
            "split it into sentences"
        )
    for position, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            raise TextError(
                f"{what} holds the control character U+{ord(character):04X} at position "
                f"{position}: remove it"
            )
    if not any(character.isalnum() for character in text):
        shown = text if len(text) <= 40 else text[:40] + "..."
        raise TextError(f"{what} {shown!r} has no letter or digit: there is nothing to say")
    return text
