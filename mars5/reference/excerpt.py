"""The best few seconds of a long recording, cut in pauses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mars5.audio import AudioInput
from mars5.errors import AudioInputError, ConfigError
from mars5.reference.activity import Activity, Pause, db
from mars5.reference.recording import FRAMES_PER_SECOND, measure, read_span

MARGIN_SECONDS = 0.2  # of a pause, kept before and after the speech
EXCERPT_SECONDS = (5.0, 8.0)

_SHORTEST, _LONGEST = 1.0, 60.0
_ENOUGH_SNR_DB = 40.0
_LONG_PAUSE = 30  # frames: an end of a phrase; longer pauses are no better places to cut
_MARGIN = round(MARGIN_SECONDS * FRAMES_PER_SECOND)
_LEAST_MARGIN = 2  # frames


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A part of a recording.

    Attributes:
        audio: (T,) float32 at 24 kHz.
        start, end: where it was, in seconds.
        words: why it was chosen.
    """

    audio: Tensor
    start: float
    end: float
    words: str


def best_excerpt(audio: AudioInput, seconds: tuple[float, float] = EXCERPT_SECONDS) -> Excerpt:
    """The part of a recording that makes the best reference.

    Every part that begins and ends in a pause and has a fitting length is scored by the distance
    of its speech from its noise, its share of speech and longest pause, clipping, a level typical
    of the recording, and the pauses it is cut in. Time grows linearly with the recording, which
    may last 4 hours; memory holds only measures, about 7 kB for a second.

    Args:
        audio: as in `Mars5TTS.generate`; a path is read block by block, twice.
        seconds: shortest and longest length wished, within 1 to 60 s.

    Raises:
        AudioInputError: not usable audio, shorter than wished, or without a fitting part.
        ConfigError: `seconds` is no such pair.
    """
    shortest, longest = _checked(seconds)
    measures = measure(audio)
    if measures.seconds < shortest:
        raise AudioInputError(
            f"{measures.name} lasts {measures.seconds:.2f} s; an excerpt of {shortest:g} s or more "
            "was asked for: use the whole recording"
        )
    activity = Activity(measures)
    start, end, words = _best(activity, measures.name, shortest, longest)
    part = read_span(audio, start / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND)
    return Excerpt(
        torch.from_numpy(part), start / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND, words
    )


def trimmed(audio: AudioInput) -> Excerpt:
    """A recording of up to a minute, with at most 0.2 s of silence before and after the speech."""
    measures = measure(audio)
    activity = Activity(measures)
    start = max(0.0, activity.leading_seconds - MARGIN_SECONDS)
    end = min(measures.seconds, measures.seconds - activity.trailing_seconds + MARGIN_SECONDS)
    return Excerpt(
        torch.from_numpy(read_span(audio, start, end)), start, end, "trimmed the silent ends"
    )


def _checked(seconds: tuple[float, float]) -> tuple[float, float]:
    numbers = isinstance(seconds, tuple) and len(seconds) == 2
    if not numbers or not _SHORTEST <= seconds[0] <= seconds[1] <= _LONGEST:
        raise ConfigError(
            f"seconds must be a pair (shortest, longest) within {_SHORTEST:g} to {_LONGEST:g}, "
            f"got {seconds!r}"
        )
    return seconds


def _best(activity: Activity, name: str, shortest: float, longest: float) -> tuple[int, int, str]:
    """First frame, frame after the last, and why."""
    score = _Score(activity)
    least, most = math.ceil(shortest * FRAMES_PER_SECOND), int(longest * FRAMES_PER_SECOND)
    candidates = [] if activity.steady else _candidates(activity.pauses, least, most)
    best = max(candidates, key=score.of, default=None)
    if best is None:
        raise AudioInputError(
            f"{name} has no part of {shortest:g} to {longest:g} s between two pauses: cut one out "
            "by hand, or allow other lengths"
        )
    return best.start, best.end, score.words(best)


@dataclass(frozen=True)
class _Part:
    """Frames `start` to `end`, cut in the pauses `first` and `last`."""

    start: int
    end: int
    first: Pause
    last: Pause
    longest_pause: int  # between the two


def _candidates(pauses: list[Pause], least: int, most: int) -> Iterator[_Part]:
    """All parts with a fitting length; the pauses in one are few, so their number is linear."""
    for i, first in enumerate(pauses):
        longest_pause = 0
        for last in islice(pauses, i + 1, None):
            spare = (most - (last.start - first.end)) // 2
            if spare < _LEAST_MARGIN:
                break
            start = first.end - min(_MARGIN, spare, first.frames)
            end = last.start + min(_MARGIN, spare, last.frames)
            if end - start >= least:
                yield _Part(start, end, first, last, longest_pause)
            longest_pause = max(longest_pause, last.frames)


class _Score:
    """How good a part is, in decibels of noise that would weigh as much."""

    def __init__(self, activity: Activity) -> None:
        self._speech = _sums(activity.speech)
        self._speech_power = _sums(activity.power * activity.speech)
        self._pause_power = _sums(activity.power * ~activity.speech)
        self._clipped = _sums(activity.measures.clipped)
        self._typical_db = db(activity.speech_power)

    def of(self, part: _Part) -> float:
        snr, share, level, clipped = self._facts(part)
        return (
            min(snr, _ENOUGH_SNR_DB)
            + 20 * share
            - 0.5 * abs(level - self._typical_db)
            - 2000 * min(clipped, 0.05)
            - 0.2 * max(0, part.longest_pause - _LONG_PAUSE)
            + 0.2 * (min(part.first.frames, _LONG_PAUSE) + min(part.last.frames, _LONG_PAUSE))
        )

    def words(self, part: _Part) -> str:
        snr, share, _, clipped = self._facts(part)
        return (
            f"picked {part.start / FRAMES_PER_SECOND:.2f} to {part.end / FRAMES_PER_SECOND:.2f} s, "
            f"cut in pauses of {part.first.frames / FRAMES_PER_SECOND:.2f} and "
            f"{part.last.frames / FRAMES_PER_SECOND:.2f} s: speech {snr:.0f} dB over pauses, "
            f"{share:.0%} of it speech, {clipped:.2%} clipped"
        )

    def _facts(self, part: _Part) -> tuple[float, float, float, float]:
        """Speech over noise and share of speech, level of the speech in dB, share clipped."""
        speech, power, quiet, clipped = (
            float(sums[part.end] - sums[part.start])
            for sums in (self._speech, self._speech_power, self._pause_power, self._clipped)
        )
        frames = part.end - part.start
        level = db(power / speech)
        return level - db(quiet / (frames - speech)), speech / frames, level, clipped / frames


def _sums(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(n + 1,): the sum of all before; float64, so that differences late in an hour are exact."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
