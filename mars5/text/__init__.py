"""The text front end: what may be spoken, in which pieces, and how it is written out.

Pure functions of strings; no model is needed and no state is kept between calls.
"""

from __future__ import annotations

from mars5.text.checks import MAX_CHARACTERS, check_speakable
from mars5.text.front import MAX_TEXT, prepare, prepare_limited, prepare_stream, rewriter
from mars5.text.lexicon import read_lexicon
from mars5.text.normaliser import normalise
from mars5.text.pieces import Piece, PieceStream, split_text

__all__ = [
    "MAX_CHARACTERS",
    "MAX_TEXT",
    "Piece",
    "PieceStream",
    "check_speakable",
    "normalise",
    "prepare",
    "prepare_limited",
    "prepare_stream",
    "read_lexicon",
    "rewriter",
    "split_text",
]
