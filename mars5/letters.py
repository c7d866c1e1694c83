"""Letters that a checkpoint has no tokens for: text in a script that it was not trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import regex

from mars5.text import Piece
from mars5.tokenizers import TextTokenizer

log = logging.getLogger("mars5")

_SHOWN = 20  # letters in the warning

# Latin letters, which names with accents have, are near enough to those of English; some letters
# belong to no script, such as the micro sign.
_OTHER = regex.compile(r"[\p{L}--[\p{Latin}\p{Common}\p{Inherited}]]", regex.V1)


def unknown_letters(tokenizer: TextTokenizer, text: str) -> str:
    """The letters of `text` that are not Latin and no token of their own, each once."""
    found = dict.fromkeys(_OTHER.findall(text))
    return "".join(letter for letter in found if len(tokenizer.encode(letter)) > 1)


def warn_of_letters(tokenizer: TextTokenizer, texts: Iterable[str]) -> bool:
    """Warn, once, of the first of the texts that has unknown letters; returns whether one has."""
    for text in texts:
        if letters := unknown_letters(tokenizer, text):
            log.warning(
                "the checkpoint was not trained on the letters %s and cannot speak them: write "
                "the words in Latin letters, or let a lexicon do it",
                letters[:_SHOWN],
            )
            return True
    return False


def watched(tokenizer: TextTokenizer, pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same pieces, with a warning as soon as one has unknown letters."""
    warned = False
    for piece in pieces:
        warned = warned or warn_of_letters(tokenizer, [piece.text])
        yield piece
