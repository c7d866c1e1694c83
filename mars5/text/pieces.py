"""Text in pieces that are spoken one by one, with the pauses between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from mars5.errors import TextError
from mars5.text.checks import check_characters, has_speech
from mars5.text.cutting import CLAUSE_PAUSE, cut, seconds_of
from mars5.text.sentences import Gap, Sentence, SentenceStream

MAX_PIECE_CHARACTERS = 300
"""Default of the most characters in a piece."""

MAX_PIECE_SECONDS = 12.0
"""Default of the longest piece, by the estimated speaking rate: what MARS5 speaks well at once."""

MIN_PIECE_SECONDS = 1.5
"""A sentence estimated shorter than this is spoken together with the next of its paragraph."""

SENTENCE_PAUSE = 0.4
"""Seconds between two sentences of a paragraph."""

PARAGRAPH_PAUSE = 0.8
"""Seconds between two paragraphs."""

_LIMITS = {"max_characters": (20, 5_000), "max_seconds": (2.0, 60.0)}


@dataclass(frozen=True)
class Piece:
    """What is spoken in one generation.

    Attributes:
        text: with at least one letter or digit, no blanks at its ends.
        pause_after: seconds of silence to put behind it; 0.0 behind the last, unless asked for.
        starts_paragraph: whether it is the first of the text or of a paragraph.
        pause_before: seconds of silence to put before it; only where `[pause]` has no piece before.
    """

    text: str
    pause_after: float = 0.0
    starts_paragraph: bool = False
    pause_before: float = 0.0

    @property
    def seconds(self) -> float:
        """How long the text will take to say, estimated."""
        return seconds_of(self.text)


def split_text(
    text: str,
    max_characters: int = MAX_PIECE_CHARACTERS,
    max_seconds: float = MAX_PIECE_SECONDS,
) -> list[Piece]:
    """Cut `text` of any length into pieces: sentences, short ones joined, long ones cut.

    `[pause 0.5s]` and `[pause 300ms]` become pauses; nothing else of the text is changed, but runs
    of blanks become single blanks, and what holds no letter or digit may be left out.

    Args:
        max_characters: of one piece, 20 to 5000.
        max_seconds: of one piece by the estimated speaking rate, 2 to 60.

    Raises:
        TextError: not a string, control characters, a pause too long, or a limit out of range.
    """
    stream = PieceStream(max_characters, max_seconds)
    return [*stream.feed(text), *stream.flush()]


class PieceStream:
    """Takes text in any pieces (such as the tokens of a language model), gives `Piece`s.

    A piece is given as soon as its sentence is surely finished: when the first word of the next
    has arrived, at most. However the text was cut up, the pieces are those of `split_text`.
    """

    def __init__(
        self,
        max_characters: int = MAX_PIECE_CHARACTERS,
        max_seconds: float = MAX_PIECE_SECONDS,
        rewrite: Callable[[str], str] | None = None,
    ) -> None:
        """Arguments are those of `split_text`; `rewrite` is applied to each sentence."""
        _check_limit("max_characters", max_characters)
        _check_limit("max_seconds", max_seconds)
        self._limits = int(max_characters), float(max_seconds)
        self._rewrite = rewrite or str
        self._sentences = SentenceStream()
        self._held: Piece | None = None
        self._new_paragraph = True
        self._pause_before = 0.0

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are surely finished with `text`.

        Raises:
            TextError: not a string, control characters, or a pause too long.
        """
        sentences = self._sentences.feed(check_characters(text))
        return [piece for sentence in sentences for piece in self._pieces(sentence)]

    def flush(self) -> list[Piece]:
        """The pieces of what is left: the text is at its end."""
        pieces = [p for sentence in self._sentences.flush() for p in self._pieces(sentence)]
        if self._held is not None:
            pieces += self._cut(self._held)
            self._held = None
        return pieces

    def run(self, chunks: Iterable[str]) -> Iterator[Piece]:
        """The pieces of all `chunks`, each as soon as it is finished."""
        for chunk in chunks:
            yield from self.feed(chunk)
        yield from self.flush()

    def _pieces(self, sentence: Sentence) -> Iterator[Piece]:
        pause = _pause_behind(sentence)
        text = self._rewrite(sentence.text).strip() if sentence.text else ""
        piece = self._joined(text, pause) if has_speech(text) else self._held
        if piece is self._held:
            # Nothing to say: what was asked for behind it is kept.
            if piece is None:
                self._pause_before += sentence.pause or 0.0
            elif sentence.gap is Gap.PARAGRAPH or sentence.pause is not None:
                piece = replace(piece, pause_after=pause)
        else:
            self._new_paragraph = False
        goes_on = sentence.pause is None and sentence.gap in (Gap.SENTENCE, Gap.CUT)
        if piece is not None and goes_on and piece.seconds < MIN_PIECE_SECONDS:
            self._held = piece
        elif piece is not None:
            self._held = None
            yield from self._cut(piece)
        self._new_paragraph = self._new_paragraph or sentence.gap is Gap.PARAGRAPH

    def _joined(self, text: str, pause: float) -> Piece:
        """The piece of what is held and `text`."""
        if self._held is None:
            before, self._pause_before = self._pause_before, 0.0
            return Piece(text, pause, self._new_paragraph, before)
        comma = "," if self._held.text[-1].isalnum() else ""  # a heading or item without an end
        return replace(self._held, text=f"{self._held.text}{comma} {text}", pause_after=pause)

    def _cut(self, piece: Piece) -> Iterator[Piece]:
        """`piece` within the limits."""
        parts = [part for part in cut(piece.text, *self._limits) if has_speech(part[0])]
        for number, (text, pause) in enumerate(parts):
            first, last = number == 0, number == len(parts) - 1
            yield Piece(
                text,
                piece.pause_after if last else pause,
                piece.starts_paragraph and first,
                piece.pause_before if first else 0.0,
            )


def _pause_behind(sentence: Sentence) -> float:
    if sentence.pause is not None:
        return sentence.pause
    return {
        Gap.CUT: CLAUSE_PAUSE,
        Gap.SENTENCE: SENTENCE_PAUSE,
        Gap.PARAGRAPH: PARAGRAPH_PAUSE,
        Gap.END: 0.0,
    }[sentence.gap]


def _check_limit(name: str, value: float) -> None:
    low, high = _LIMITS[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise TextError(f"{name} must be a number from {low:g} to {high:g}, got {value!r:.80}")
