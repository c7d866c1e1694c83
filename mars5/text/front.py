"""The front end as a whole: from what users write to pieces that are spoken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from mars5.errors import TextError
from mars5.text.checks import check_speakable
from mars5.text.lexicon import compile_lexicon
from mars5.text.normaliser import normalise as write_out
from mars5.text.pieces import MAX_PIECE_CHARACTERS, MAX_PIECE_SECONDS, Piece, PieceStream

MAX_TEXT = 50_000
"""Most characters of a call that keeps its audio in memory: about an hour, 350 MB."""


def prepare(
    text: str,
    lexicon: Mapping[str, str] | None = None,
    normalise: bool = True,
    *,
    max_characters: int = MAX_PIECE_CHARACTERS,
    max_seconds: float = MAX_PIECE_SECONDS,
) -> list[Piece]:
    """The pieces of `text`, of any length: cut, pronounced by `lexicon`, written out.

    Args:
        lexicon: words, and how to write them as they are said; see `compile_lexicon`.
        normalise: whether to write out numbers, dates and so on (English).
        max_characters, max_seconds: of a piece, as in `split_text`.

    Raises:
        TextError: nothing to say, control characters, or an argument that is not usable.
    """
    check_speakable(text, max_characters=None)
    stream = PieceStream(max_characters, max_seconds, rewriter(lexicon, normalise))
    pieces = [*stream.feed(text), *stream.flush()]
    if not pieces:
        raise TextError(f"text {text[:40]!r} has no word left: there is nothing to say")
    return pieces


def prepare_limited(
    text: str, lexicon: Mapping[str, str] | None = None, normalise: bool = True
) -> list[Piece]:
    """As `prepare`, for one call whose result is kept in memory.

    Raises:
        TextError: as in `prepare`, and text of more than 50 000 characters, about an hour.
    """
    if isinstance(text, str) and len(text) > MAX_TEXT:
        raise TextError(
            f"text has {len(text)} characters, at most {MAX_TEXT} are spoken in one call: use "
            "narrate, speak_file or `mars5 say -f`, which take any number"
        )
    return prepare(text, lexicon, normalise)


def prepare_stream(
    chunks: Iterable[str],
    lexicon: Mapping[str, str] | None = None,
    normalise: bool = True,
    *,
    max_characters: int = MAX_PIECE_CHARACTERS,
    max_seconds: float = MAX_PIECE_SECONDS,
) -> Iterator[Piece]:
    """As `prepare`, for text that arrives in chunks: each piece as soon as it is finished.

    Raises:
        TextError: at once for an argument; while iterating for a chunk that is not usable. Text
            without anything to say gives no pieces.
    """
    stream = PieceStream(max_characters, max_seconds, rewriter(lexicon, normalise))
    return stream.run(chunks)


def rewriter(
    lexicon: Mapping[str, str] | None = None, normalise: bool = True
) -> Callable[[str], str]:
    """What `prepare` does to each sentence: the lexicon first, then the writing out.

    Raises:
        TextError: the lexicon is not usable.
    """
    pronounce = compile_lexicon({} if lexicon is None else lexicon)
    if not normalise:
        return pronounce
    return lambda sentence: write_out(pronounce(sentence))
