"""Slower and faster speech at the same pitch, of a wave that arrives in parts.

Overlap and add with waveform similarity (WSOLA, Verhelst and Roelands 1993): the output is made of
short windows of the input, taken further apart or closer together than they are put down. Each is
moved a little, to where the input is most like what followed the window before; so the periods of
the voice go on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

HOP = 240  # samples from one window to the next, 10 ms
WINDOW = 3 * HOP  # compared: two periods of a deep voice
REACH = 240  # samples by which a window may be moved, either way: a period of 50 Hz is met

Samples = npt.NDArray[np.float32]


class Tempo:
    """Changes the tempo of one wave; what it gives does not depend on how the wave is cut up.

    Args:
        speed: 2 is twice as fast; 1 gives what it is fed.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._wave: Samples = np.zeros(0, np.float32)  # from the sample `_first` on
        self._first = 0
        self._following = 0  # the sample behind the last window that was put down
        self._windows = 0  # put down so far

    def feed(self, part: Tensor) -> Tensor:
        """The samples (n,) that are sure now that `part` (m,) has arrived."""
        if self._speed == 1:
            return part
        self._wave = np.concatenate([self._wave, part.numpy()])
        made = []
        while self._needed() <= self._fed:
            made.append(self._put_down(self._best()))
        return _joined(made)

    def finish(self) -> Tensor:
        """The rest: the whole is the wave's length divided by the speed, and ends as it does."""
        if self._speed == 1:
            return torch.zeros(0, dtype=torch.float32)
        end = self._fed
        left = round(end / self._speed) - HOP * self._windows
        self._wave = np.concatenate([self._wave, np.zeros(WINDOW + 2 * REACH, np.float32)])
        windows = max(left // HOP - 1, -((end - left) // HOP))  # the latter for less than 20 ms
        made = [self._put_down(self._best()) for _ in range(windows)]
        last = max(0, left - HOP * len(made))  # it ends where the wave does
        start, fade = end - last, min(HOP, last)
        made += [self._put_down(start, fade), self._from(start + fade, last - fade)]
        return _joined(made)[:left]

    @property
    def _fed(self) -> int:
        return self._first + len(self._wave)

    def _aim(self) -> int:
        """Where the next window would begin if none were moved."""
        return round(HOP * self._windows * self._speed)

    def _needed(self) -> int:
        """How many samples must be there for the next window."""
        return max(self._aim() + REACH, self._following) + WINDOW

    def _best(self) -> int:
        """Where the next window begins: near where it should, and most like what would follow."""
        if not self._windows:
            return 0
        start = max(self._aim() - REACH, self._first)
        field = self._from(start, self._aim() + REACH + WINDOW - start)
        products = np.correlate(field, self._from(self._following, WINDOW), "valid")
        sums = np.concatenate([[0.0], np.square(field, dtype=np.float64).cumsum()])
        energies = sums[WINDOW:] - sums[:-WINDOW]
        return start + int((products / np.sqrt(energies + 1e-6)).argmax())

    def _put_down(self, start: int, length: int = HOP) -> Samples:
        """Output in which the window before gives way to the one that begins here."""
        old, new = self._from(self._following, length), self._from(start, length)
        self._following, self._windows = start + length, self._windows + 1
        self._drop(min(self._following, self._aim() - REACH))
        return old + (new - old) * _rising(length)

    def _from(self, start: int, length: int) -> Samples:
        at = start - self._first
        return self._wave[at : at + length]

    def _drop(self, before: int) -> None:
        """Forget the samples before this one."""
        n = max(0, before - self._first)
        self._wave, self._first = self._wave[n:], self._first + n


def retimed(wave: Tensor, speed: float) -> Tensor:
    """A whole wave (T,) at another tempo: (round(T / speed),); itself at 1."""
    if speed == 1:
        return wave
    tempo = Tempo(speed)
    return torch.cat([tempo.feed(wave), tempo.finish()])


def _rising(length: int) -> Samples:
    """Weights from 0 to 1, which with those from 1 to 0 sum to 1."""
    places = (np.arange(length) + 0.5) / max(1, length)
    return (0.5 - 0.5 * np.cos(np.pi * places)).astype(np.float32)


def _joined(parts: list[Samples]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *parts]))
