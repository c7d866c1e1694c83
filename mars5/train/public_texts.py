"""Sentences from texts that Debian packages: fortunes, and the examples of WordNet."""

from __future__ import annotations

import re
from pathlib import Path

FORTUNES = Path("/usr/share/games/fortunes")
WORDNET = Path("/usr/share/wordnet")
# Collections made of lists, code, verse layouts or other languages: poor sentences to read aloud.
SKIPPED_FORTUNES = frozenset(
    "ascii-art art perl debian linuxcookie knghtbrd translate-me zippy paradoxum".split()  # noqa: SIM905
)
SPEAKABLE = re.compile(r"[A-Z][A-Za-z',;: -]*[a-z][.?!]")
MIN_WORDS, MAX_WORDS, MAX_CHARACTERS = 3, 14, 84


def read_fortunes(folder: Path = FORTUNES) -> list[str]:
    """The speakable sentences of Debian's fortune files, sorted; empty if none is installed."""
    found: set[str] = set()
    if not folder.is_dir():
        return []
    for path in sorted(folder.iterdir()):
        if path.suffix or path.name in SKIPPED_FORTUNES:
            continue
        for fortune in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
            found.update(_sentences(fortune))
    return sorted(found)


def _sentences(fortune: str) -> list[str]:
    body = re.split(r"\n\s*--", fortune)[0]  # the attribution is no sentence
    flat = re.sub(r"\s+", " ", body)
    pieces = re.split(r"(?<=[.?!])\s+", flat)
    return _speakable(pieces)


def _speakable(sentences: list[str]) -> list[str]:
    return [
        s
        for s in sentences
        if SPEAKABLE.fullmatch(s)
        and MIN_WORDS <= len(s.split()) <= MAX_WORDS
        and len(s) <= MAX_CHARACTERS
    ]


def read_wordnet(folder: Path = WORDNET) -> list[str]:
    """The speakable examples of use in `wordnet-base`, sorted; empty if it is not installed.

    Most are a clause without its full stop ("the baby cried for its mother"), which is added.
    """
    found: set[str] = set()
    for path in sorted(folder.glob("data.*")):
        for example in re.findall(r'"([^"]+)"', path.read_text(encoding="utf-8")):
            ended = example if example[-1] in ".?!" else f"{example}."
            found.update(_speakable([ended[0].upper() + ended[1:]]))
    return sorted(found)
