"""What differs between two transcripts of a recording, and where in the recording that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import TypeAlias

from torch import Tensor

from mars5.config import SAMPLE_RATE
from mars5.errors import ConfigError, TextError
from mars5.eval.alignment import align
from mars5.eval.clips import to_judges
from mars5.eval.ears import Recogniser
from mars5.eval.text import word_errors, words_of
from mars5.text.controls import check_no_pause, unescape

MAX_WORD_ERROR_RATE = 0.4  # of what is heard against the transcript: more means another recording
_SLACK = 0.1  # seconds by which times may exceed the recording
_CONTEXT = 12  # words on either side that may decide how one is written out
_SAID = frozenset("'&@%+=°€$£")  # are no letters or digits, but count as such

Times: TypeAlias = Sequence[tuple[float, float]]
"""Seconds (start, end) of each word of a transcript, as separated by blanks."""


@dataclass(frozen=True)
class Change:
    """The words `i1` to `i2` of the old transcript become the words `j1` to `j2` of the new one."""

    i1: int
    i2: int
    j1: int
    j2: int


def changes(
    transcript: str, new_transcript: str, rewrite: Callable[[str], str] = str
) -> list[Change]:
    """The words to change, in order; case and punctuation do not count.

    Args:
        rewrite: how text is written out. What it writes out together ("$5 million", "March 3")
            changes together, so that it can be applied to the words of a change alone.

    Raises:
        TextError: no word differs, or none stays; there is a pause tag.
    """
    check_no_pause(transcript, "transcript")
    check_no_pause(new_transcript, "new_transcript")
    texts = (unescape(text) for text in (transcript, new_transcript))
    old, new = (_said_units(text.split(), rewrite) for text in texts)
    found = SequenceMatcher(None, [x.said for x in old], [x.said for x in new], autojunk=False)
    changed = [
        Change(*_places(old, i1, i2), *_places(new, j1, j2))
        for tag, i1, i2, j1, j2 in found.get_opcodes()
        if tag != "equal"
    ]
    if not changed:
        raise TextError(
            "new_transcript has the same words as transcript: there is nothing to edit; case and "
            "punctuation do not count"
        )
    if not found.ratio():
        raise TextError(
            "new_transcript has no word of transcript: that is no edit; speak it with the "
            "recording as a reference instead (generate)"
        )
    return changed


@dataclass(frozen=True)
class _Unit:
    """The words `start` to `stop`, and as what they are compared."""

    start: int
    stop: int
    said: str


def _said_units(words: list[str], rewrite: Callable[[str], str]) -> list[_Unit]:
    """The smallest groups of words that are written out alone as they are among others.

    What is not said at their ends, as a dash between blanks, is left out.
    """
    bare = [_bare(word) for word in words]
    edges = [at for at in range(1, len(words)) if _is_edge(words, at, rewrite)]
    units = []
    for start, stop in pairwise([0, *edges, len(words)]):
        if said := [at for at in range(start, stop) if bare[at]]:
            units.append(_Unit(said[0], said[-1] + 1, " ".join(bare[at] for at in said)))
    return units


def _is_edge(words: list[str], at: int, rewrite: Callable[[str], str]) -> bool:
    """Whether what stands before and behind a place is written out the same without the other."""
    before, behind = words[max(0, at - _CONTEXT) : at], words[at : at + _CONTEXT]
    together, *apart = (rewrite(" ".join(part)) for part in (before + behind, before, behind))
    return together.split() == " ".join(apart).split()


def _places(said: list[_Unit], first: int, stop: int) -> tuple[int, int]:
    """Where the units `first` to `stop` of those that are said are among all words."""
    if first < stop:
        return said[first].start, said[stop - 1].stop
    place = said[first - 1].stop if first else 0
    return place, place


def _bare(word: str) -> str:
    plain = word.casefold().replace("\u2019", "'")
    kept = "".join(letter for letter in plain if letter.isalnum() or letter in _SAID)
    # An apostrophe at the edge cannot be told from a quotation mark.
    return kept.strip("'")


def gap(change: Change, times: Times) -> tuple[float, float]:
    """Seconds (start, end) of the recording that go.

    Of replaced words the pauses around them stay, of deleted ones the pause before; words are
    inserted into the middle of a pause.
    """
    i1, i2 = change.i1, change.i2
    if i1 == i2:
        before = times[i1 - 1][1] if i1 else times[0][0]
        after = times[i1][0] if i1 < len(times) else before
        return (before + after) / 2, (before + after) / 2
    start, end = times[i1][0], times[i2 - 1][1]
    if change.j1 == change.j2 and i2 < len(times):
        end = times[i2][0]  # else the pauses on both sides would be joined
    return start, end


def check_times(times: Times, transcript: str) -> None:
    """Refuse times that a caller gave and that cannot be meant.

    Raises:
        ConfigError: not one pair of seconds for each word, or not in order.
    """
    words = transcript.split()
    if not isinstance(times, Sequence):
        raise ConfigError(f"times must be a list of pairs in seconds, got {type(times).__name__}")
    if len(times) != len(words):
        raise ConfigError(
            f"times has {len(times)} entries, but transcript has {len(words)} words: give (start, "
            "end) in seconds for each"
        )
    last = 0.0
    for word, pair in zip(words, times, strict=True):
        if not _is_pair(pair) or not last <= pair[0] <= pair[1]:
            raise ConfigError(
                f"times: {pair!r:.80} of the word {word!r} must be (start, end) in seconds, and "
                f"not before {last:g} s, where the word before it ends"
            )
        last = pair[1]


def check_end(times: Times, seconds: float) -> None:
    """Refuse times beyond a recording of so many seconds, with a `ConfigError`."""
    if times[-1][1] > seconds + _SLACK:
        raise ConfigError(
            f"times end at {times[-1][1]:g} s, but the recording lasts {seconds:.2f} s: give "
            "seconds from its start"
        )


def _is_pair(pair: object) -> bool:
    return (
        isinstance(pair, (tuple, list))
        and len(pair) == 2
        and all(isinstance(at, (int, float)) and math.isfinite(at) for at in pair)
    )


def heard_times(ears: Recogniser, wave: Tensor, transcript: str) -> Times:
    """The times of the words of `transcript` in a recording (T,) at 24 kHz.

    Raises:
        TextError: something else is heard than the transcript.
        AudioInputError: the recording is longer than 29 s.
    """
    recording = to_judges(wave.numpy(), SAMPLE_RATE)
    words = align(ears, recording, transcript)
    said, heard = words_of(transcript), ears.transcribe([recording])[0]
    rate = word_errors(said, words_of(heard)) / max(1, len(said))
    if rate > MAX_WORD_ERROR_RATE:
        raise TextError(
            f"the transcript does not fit the recording: {rate:.0%} of its words are wrong, the "
            f"limit is {MAX_WORD_ERROR_RATE:.0%}; heard was {heard!r:.200}: correct it, or give "
            "the times of its words"
        )
    return [(word.start, word.end) for word in words]
