"""Control tags in text: `[pause 0.5s]` and its escape `\\[pause 0.5s]`."""

from __future__ import annotations

import re

from mars5.errors import TextError

MAX_PAUSE = 60.0

_PAUSE = re.compile(r"\[pause ([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(ms|s)\]", re.IGNORECASE)
_UNFINISHED = re.compile(
    r"\[(?:p(?:a(?:u(?:s(?:e(?: (?:[0-9]{1,6}(?:\.[0-9]{0,6})? ?(?:m?s?)?)?)?)?)?)?)?)?\Z",
    re.IGNORECASE,
)
_UNESCAPED = re.compile(r"(?<!\\)" + _PAUSE.pattern, re.IGNORECASE)
_ESCAPED = re.compile(r"\\(?=" + _PAUSE.pattern + ")", re.IGNORECASE)


def read_pause(text: str, at: int) -> tuple[float, int] | None:
    """(seconds, where the tag ends) of the pause tag at `at`; None if there is none.

    Raises:
        TextError: a pause longer than `MAX_PAUSE` seconds.
    """
    tag = _PAUSE.match(text, at)
    if tag is None:
        return None
    seconds = float(tag[1]) / (1000 if tag[2].lower() == "ms" else 1)
    if seconds > MAX_PAUSE:
        raise TextError(f"{tag[0]} is longer than {MAX_PAUSE:g} s: write several pauses")
    return seconds, tag.end()


def end_of_escaped(text: str, at: int) -> int | None:
    """Where the pause tag after the backslash at `at` ends; None if there is none."""
    tag = _PAUSE.match(text, at + 1)
    return None if tag is None else tag.end()


def may_become_pause(text: str, at: int) -> bool:
    """Whether `text` ends in the middle of what may be a pause tag that begins at `at`."""
    return _UNFINISHED.match(text, at) is not None


def check_no_pause(text: str, what: str) -> None:
    """Refuse text with a pause tag where no pause can be made.

    Args:
        what: the name used in the message.

    Raises:
        TextError: there is one.
    """
    tag = _UNESCAPED.search(text)
    if tag is not None:
        raise TextError(
            f"{what} holds {tag[0]} at position {tag.start()}, but an edit makes no pauses: leave "
            "the tag out"
        )


def unescape(text: str) -> str:
    """`text` without the backslash of escaped tags."""
    return _ESCAPED.sub("", text)
