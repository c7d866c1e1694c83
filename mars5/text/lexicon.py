"""The pronunciation dictionary of one call: words, and how to write them as they are said."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from mars5.errors import TextError
from mars5.text.checks import check_characters, has_speech
from mars5.text.symbols import APOSTROPHES

MAX_ENTRIES = 5_000
MAX_ENTRY_CHARACTERS = 200
_APOSTROPHE = f"[{APOSTROPHES}]"


def read_lexicon(path: str | os.PathLike[str]) -> dict[str, str]:
    """The lexicon in a file of UTF-8 lines `word = said`; `#` begins a line of comment.

    Raises:
        TextError: the file cannot be read, or a line of it cannot be meant; both are named.
    """
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a zero byte in the path
        raise TextError(f"cannot read the lexicon {path!s} as UTF-8 text: {error}") from error
    lexicon: dict[str, str] = {}
    for number, line in enumerate(content.splitlines(), 1):
        word, equals, said = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{path!s}, line {number}"
        if not equals or not said:
            raise TextError(f"{place}: expected 'word = how it is said', got {line!r:.80}")
        if word in lexicon:
            raise TextError(f"{place}: there is an entry for {word!r} already: keep one of them")
        try:
            compile_lexicon({word: said})
        except TextError as error:
            raise TextError(f"{place}: {error}") from error
        lexicon[word] = said
    return lexicon


def compile_lexicon(lexicon: Mapping[str, str]) -> Callable[[str], str]:
    """A function that replaces the entries of `lexicon` in a text.

    Whole words only, the longest entry first, each place once: what is put in is not searched
    again. A key without capitals fits any case; a key with a capital fits exactly as written. An
    apostrophe fits any other, as books and word processors have their own.

    Raises:
        TextError: not a mapping of strings to strings, more than `MAX_ENTRIES`, a key without a
            letter or digit, or a key or value beyond `MAX_ENTRY_CHARACTERS` or not printable.
    """
    if not isinstance(lexicon, Mapping):
        raise TextError(f"lexicon must map words to strings, got {type(lexicon).__name__}")
    if len(lexicon) > MAX_ENTRIES:
        raise TextError(f"lexicon has {len(lexicon)} entries, at most {MAX_ENTRIES} are allowed")
    entries = [_entry(word, spoken) for word, spoken in lexicon.items()]
    if not entries:
        return lambda text: text
    entries.sort(key=lambda entry: (-len(entry[0]), entry[0].islower(), entry[0]))
    spoken_as = [spoken for _, spoken in entries]
    pattern = re.compile(
        r"(?<!\w)(?:" + "|".join(_pattern(word) for word, _ in entries) + r")(?!\w)"
    )
    return lambda text: pattern.sub(lambda match: spoken_as[(match.lastindex or 0) - 1], text)


def _entry(word: str, spoken: str) -> tuple[str, str]:
    for value, what in ((word, "a key"), (spoken, f"the value of {word!r:.80}")):
        check_characters(value, f"{what} of lexicon" if what == "a key" else f"{what} in lexicon")
        if len(value) > MAX_ENTRY_CHARACTERS:
            raise TextError(
                f"{what} in lexicon has {len(value)} characters, at most "
                f"{MAX_ENTRY_CHARACTERS} are allowed"
            )
    if not has_speech(word):
        raise TextError(f"the key {word!r} in lexicon has no letter or digit: it is no word")
    return " ".join(word.split()), spoken


def _pattern(word: str) -> str:
    body = r"\s+".join(re.escape(part) for part in word.split(" "))
    body = re.sub(_APOSTROPHE, _APOSTROPHE, body)
    return f"({body})" if word != word.lower() else f"((?i:{body}))"
