"""The pronunciation dictionary of one call: words, and how to write them as they are said."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mars5.errors import TextError
from mars5.text.checks import check_characters, has_speech
from mars5.text.symbols import APOSTROPHES

MAX_ENTRIES = 5_000
MAX_ENTRY_CHARACTERS = 200
_APOSTROPHE = f"[{APOSTROPHES}]"
_BEGINNING = re.compile(r"(?<!\w)(?:\w+|[^\w\s])")  # of an entry: a word or a sign


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
    for number, line in enumerate(content.split("\n"), 1):  # splitlines knows more line ends
        word, equals, said = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{path!s}, line {number}"
        if not equals or not said:
            raise TextError(f"{place}: expected 'word = how it is said', got {line!r:.80}")
        if word in lexicon:
            raise TextError(f"{place}: there is an entry for {word!r} already: keep one of them")
        try:
            _entry(word, said)
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
    entries.sort(key=lambda entry: (-len(entry[0]), entry[0].islower(), entry[0]))
    alike: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for word, spoken in entries:
        alike[_first(_BEGINNING.match(word))].append((word, spoken))
    return _Replacing({first: _compile(group) for first, group in alike.items()})


@dataclass(frozen=True)
class _Replacing:
    """Entries by what they begin with: thousands of them are not all tried at every word."""

    groups: Mapping[str, tuple[re.Pattern[str], list[str]]]

    def __call__(self, text: str) -> str:
        pieces: list[str] = []
        done = 0
        for beginning in _BEGINNING.finditer(text):
            at, group = beginning.start(), self.groups.get(_first(beginning))
            if at < done or group is None:
                continue
            pattern, spoken_as = group
            if found := pattern.match(text, at):
                pieces += text[done:at], spoken_as[(found.lastindex or 0) - 1]
                done = found.end()
        return "".join([*pieces, text[done:]])


def _first(beginning: re.Match[str] | None) -> str:
    """What a word or sign that an entry begins with is known by, in any case."""
    return "" if beginning is None else re.sub(_APOSTROPHE, "'", beginning[0]).casefold()


def _compile(entries: Sequence[tuple[str, str]]) -> tuple[re.Pattern[str], list[str]]:
    """A pattern with a group for each entry, and what is said for each."""
    pattern = re.compile("(?:" + "|".join(_pattern(word) for word, _ in entries) + r")(?!\w)")
    return pattern, [spoken for _, spoken in entries]


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
