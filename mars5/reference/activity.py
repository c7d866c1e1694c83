"""Where a measured recording holds speech, where it pauses, and how loud both are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mars5.reference.recording import FRAMES_PER_SECOND, Flags, Floats, Measures

LEAST_PAUSE = 5  # frames: shorter gaps are the closures of stops, inside words
_LEAST_SOUND = 2  # frames: shorter ones are clicks
_FLOOR = 1e-10  # -100 dB
_DIGITAL_SILENCE_DB = -85.0
_STEADY_DB = 6.0
_MOST_DB = 80.0


def db(power: float) -> float:
    """A power in decibels under full scale, at least -100."""
    return float(10 * np.log10(max(power, _FLOOR)))


@dataclass(frozen=True)
class Pause:
    """Frames `start` to `end` (half open) without speech."""

    start: int
    end: int

    @property
    def frames(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Activity:
    """Speech and pauses of a recording, judged by the level of its frames of 20 ms.

    The noise is what the quietest tenth of the frames holds, digital silence at the ends set
    aside; a frame is speech that rises above it by 0.4 of the range up to the loudest twentieth,
    and lies at most 30 dB under those.
    """

    measures: Measures

    @cached_property
    def power(self) -> Floats:
        """(n,) of each frame, above 150 Hz."""
        power: Floats = self.measures.bands.sum(1)
        return power

    @cached_property
    def noise(self) -> float:
        """Power of the background."""
        audible = np.flatnonzero(10 * np.log10(self.power + _FLOOR) > _DIGITAL_SILENCE_DB)
        if not audible.size:
            return 0.0
        inner = np.sort(self.power[audible[0] : audible[-1] + 1])
        return float(inner[: max(1, len(inner) // 10)].mean())

    @cached_property
    def range_db(self) -> float:
        """From the noise to the loudest twentieth of the frames."""
        return self._loud_db - db(self.noise)

    @property
    def steady(self) -> bool:
        """Whether the level hardly changes: no speech does that."""
        return self.range_db < _STEADY_DB

    @cached_property
    def speech(self) -> Flags:
        """(n,) whether a frame is part of speech; everything, if the recording is steady."""
        if self.steady:
            return np.ones(len(self.power), np.bool_)
        threshold = max(self._loud_db - 30, db(self.noise) + 0.4 * self.range_db)
        active: Flags = 10 * np.log10(self.power + _FLOOR) > threshold
        return without_short_runs(without_short_runs(active, True, _LEAST_SOUND), False, 3)

    @cached_property
    def pauses(self) -> list[Pause]:
        """Runs of at least 0.1 s without speech, those at the ends included."""
        edges = np.flatnonzero(np.diff(np.pad(~self.speech, 1).astype(np.int8)))
        runs = (Pause(int(a), int(b)) for a, b in edges.reshape(-1, 2))
        return [run for run in runs if run.frames >= LEAST_PAUSE]

    @cached_property
    def speech_power(self) -> float:
        """Mean power of the speech, without the noise under it; of all, if that is steady."""
        heard = float(self.power[self.speech].mean()) if self.speech.any() else 0.0
        return max(heard if self.steady else heard - self.noise, _FLOOR)

    @property
    def snr_db(self) -> float:
        """Speech over noise, at most 80."""
        return min(db(self.speech_power) - db(self.noise), _MOST_DB)

    @property
    def leading_seconds(self) -> float:
        """From the beginning to the first speech."""
        return float(np.argmax(self.speech)) / FRAMES_PER_SECOND

    @property
    def trailing_seconds(self) -> float:
        """From the last speech to the end."""
        return float(np.argmax(self.speech[::-1])) / FRAMES_PER_SECOND

    @cached_property
    def _loud_db(self) -> float:
        return db(float(np.percentile(self.power, 95)))


def without_short_runs(flags: Flags, value: bool, least: int) -> Flags:
    """`flags` with runs of `value` shorter than `least` turned over, but for those at the ends."""
    edges = np.flatnonzero(np.diff(np.pad(flags == value, 1).astype(np.int8))).reshape(-1, 2)
    result = flags.copy()
    for start, end in edges[(edges[:, 1] - edges[:, 0] < least)]:
        if start > 0 and end < len(flags):
            result[start:end] = not value
    return result
