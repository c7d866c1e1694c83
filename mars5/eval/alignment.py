"""When each word of a text is said in a recording, by the attention of a recogniser.

Whisper is made to read the given words, not to guess them, and its cross-attention tells when it
looks where. That is good to about a tenth of a second with "base", a quarter with "tiny.en"; the
edges are then moved to where the recording is quietest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mars5.errors import AudioInputError
from mars5.eval.ears import RATE, WINDOW_SECONDS, Recogniser, Wave, window_frames

_STEPS_PER_SECOND = 50  # of the attention
_BLOCKS_PER_SECOND = 100  # in which loudness is looked at
_REACH = 0.08  # seconds by which the joint of two words is moved, at most
_SILENT_DB = 32.0  # under the loudest block: no speech
_EMPTY = 1e-5  # amplitude, to take the logarithm of


@dataclass(frozen=True)
class TimedWord:
    """A word of a text, as it is said in a recording.

    Attributes:
        text: as it was written, with its punctuation.
        start, end: seconds.
        probability: 0 to 1, how likely the recogniser would have written it there.
    """

    text: str
    start: float
    end: float
    probability: float


def align(ears: Recogniser, wave: Wave, text: str) -> list[TimedWord]:
    """The words of `text`, separated by blanks, with the times at which `wave` says them.

    Args:
        wave: (T,) float32 at 16 kHz, which says `text`; what it does not say gets a low
            probability and times of little worth.

    Raises:
        AudioInputError: the recording is longer than 29 s, which Whisper cannot see at once.
    """
    words = text.split()
    seconds = len(wave) / RATE
    if seconds > WINDOW_SECONDS:
        raise AudioInputError(
            f"the recording lasts {seconds:.1f} s, words are found in at most {WINDOW_SECONDS} s: "
            "cut it up"
        )
    if not words or not len(wave):
        return []
    tokens = [ears._tokenizer.encode(" " + word) for word in words]
    frames = window_frames(len(wave))
    padded = np.pad(wave, (0, frames * RATE // 100 - len(wave)))
    mel = np.ascontiguousarray(ears._whisper.feature_extractor(padded)[None, :, :frames])
    (found,) = ears._whisper.model.align(
        ears._whisper.encode(mel),
        ears._tokenizer.sot_sequence,
        [[token for word in tokens for token in word]],
        len(wave) * 100 // RATE,
    )
    path = np.array(found.alignments)  # (step, 2): index of the token, of the time
    first = np.diff(path[:, 0], prepend=-1) > 0
    starts = path[first, 1] / _STEPS_PER_SECOND  # of each token, and of the end of the text
    ends = np.cumsum([len(word) for word in tokens])
    timed = [
        TimedWord(
            word,
            float(starts[stop - len(own)]),
            float(min(starts[stop], seconds)),
            float(np.mean(found.text_token_probs[stop - len(own) : stop])),
        )
        for word, own, stop in zip(words, tokens, ends, strict=True)
    ]
    return settled(timed, wave)


def settled(words: Sequence[TimedWord], wave: Wave) -> list[TimedWord]:
    """The same words, their edges moved to quiet places; what is silent belongs to no word.

    Args:
        words: in order, not overlapping.
        wave: (T,) at 16 kHz.
    """
    loudness = _loudness(wave)
    moved = list(words)
    for i, (one, other) in enumerate(pairwise(words)):
        if other.start - one.end > _REACH:
            continue  # a pause: there is nothing to divide
        joint = (one.end + other.start) / 2
        low = max(joint - _REACH, (one.start + one.end) / 2)
        high = min(joint + _REACH, (other.start + other.end) / 2)
        joint = _quietest(loudness, low, high, joint)
        moved[i] = replace(moved[i], end=joint)
        moved[i + 1] = replace(moved[i + 1], start=joint)
    return [_without_silence(word, loudness) for word in moved]


def _loudness(wave: Wave) -> npt.NDArray[np.float64]:
    """(N,) decibels under the loudest block."""
    size = RATE // _BLOCKS_PER_SECOND
    blocks = np.pad(wave, (0, -len(wave) % size)).reshape(-1, size).astype(np.float64)
    level = 20 * np.log10(np.sqrt((blocks**2).mean(1)) + _EMPTY)
    decibels: npt.NDArray[np.float64] = level - level.max()
    return decibels


def _quietest(
    loudness: npt.NDArray[np.float64], low: float, high: float, otherwise: float
) -> float:
    """Seconds: the middle of the quietest block between `low` and `high`."""
    first, last = (round(at * _BLOCKS_PER_SECOND) for at in (low, high))
    part = loudness[first:last]
    if not len(part):
        return otherwise
    return (first + int(part.argmin()) + 0.5) / _BLOCKS_PER_SECOND


def _without_silence(word: TimedWord, loudness: npt.NDArray[np.float64]) -> TimedWord:
    first, last = (round(at * _BLOCKS_PER_SECOND) for at in (word.start, word.end))
    loud = (loudness[first:last] > -_SILENT_DB).nonzero()[0]
    if not len(loud):
        return word
    start = max(word.start, (first + int(loud[0])) / _BLOCKS_PER_SECOND)
    end = min(word.end, (first + int(loud[-1]) + 1) / _BLOCKS_PER_SECOND)
    return replace(word, start=start, end=end)
