"""The text that a line gives, or standard input."""

from __future__ import annotations

import codecs
import io
import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from mars5.commands.options import STANDARD
from mars5.errors import TextError
from mars5.files import is_file_name

log = logging.getLogger("mars5")

_MOST_BYTES = 2**13  # of standard input at a time; less is taken as soon as it is there
_REMEDY = "send a text to it, as in 'mars5 say - < chapter.txt', or give the text in place of -"


def whole_text(text: str) -> str:
    """The text of a line, or for - all of standard input; warns of what looks like a slip.

    Raises:
        TextError: standard input is closed, cannot be read, or is no text.
    """
    if text != STANDARD:
        return _not_a_file(text)
    stdin = _standard_input()
    with _readable():
        return stdin.read().strip()


def text_as_it_comes(text: str) -> str | Iterator[str]:
    """As `whole_text`, but of standard input each part as soon as it is there.

    Raises:
        TextError: as in `whole_text`; what is read later raises it while iterating.
    """
    return _typed(_standard_input()) if text == STANDARD else _not_a_file(text)


def _not_a_file(text: str) -> str:
    """`text`; warns if it is the name of a file."""
    if is_file_name(text):
        log.warning(
            "speaking the name of the file %r: 'mars5 say -f %s' speaks its text",
            text,
            shlex.quote(text),
        )
    return text


def _standard_input() -> TextIO:
    if sys.stdin is None:  # Python's word for a closed one
        raise TextError(f"standard input is closed: {_REMEDY}")
    return sys.stdin


def _typed(stdin: TextIO) -> Iterator[str]:
    """Standard input as it comes: a program that writes text a word at a time ends no lines."""
    decode = codecs.getincrementaldecoder(stdin.encoding)()
    decoder = io.IncrementalNewlineDecoder(decode, translate=True)  # as sys.stdin itself
    pipe = cast(io.BufferedReader, stdin.buffer)
    with _readable():
        while data := pipe.read1(_MOST_BYTES):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)


@contextmanager
def _readable() -> Iterator[None]:
    """Say of standard input what cannot be read."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise TextError(f"standard input is not {error.encoding} text: {error.reason}") from error
    except OSError as error:
        raise TextError(f"cannot read standard input: {error}; {_REMEDY}") from error
