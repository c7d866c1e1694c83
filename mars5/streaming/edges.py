"""The silence at the ends of a wave that arrives in parts, and fades where it begins and ends."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mars5.audio import trim_silence
from mars5.config import SAMPLE_RATE

BLOCK = 512  # samples whose level is judged together
KEPT = 1024  # samples kept behind the last block that can be heard
FADE = 240  # samples, 10 ms: shorter clicks, longer swallows consonants
FLOOR_DB = -55.0  # under full scale: quieter blocks alone do not begin the sound


def silence(seconds: float) -> Tensor:
    """(T,) zeros."""
    return torch.zeros(round(seconds * SAMPLE_RATE), dtype=torch.float32)


def fade_ends(wave: Tensor) -> Tensor:
    """The wave (T,) with its first and last 10 ms faded; a copy."""
    n = min(FADE, len(wave) // 2)
    ramp = _ramp(n)
    wave = wave.clone()
    wave[:n] *= ramp
    wave[len(wave) - n :] *= ramp.flip(0)
    return wave


def cross_fade(old: Tensor, new: Tensor) -> Tensor:
    """From the wave `old` to `new`, both (T,): two versions of the same sound."""
    return torch.lerp(old, new, _ramp(len(old)))


def _ramp(n: int) -> Tensor:
    """n weights strictly between 0 and 1, rising."""
    return torch.arange(1, n + 1, dtype=torch.float32) / (n + 1)


class Edges:
    """Cuts off the silence at both ends as `trim_silence` does, without waiting for the end.

    A block counts as sound if it is less than `top_db` under the loudest that has arrived. Silence
    inside is held until sound follows it; what was given never changes.

    Args:
        top_db: decibels under the loudest block.
    """

    def __init__(self, top_db: float) -> None:
        self._top_db = top_db
        self._held = silence(0)  # samples not given yet
        self._given = 0  # samples before those, the silence in front among them
        self._unjudged = silence(0)  # the last samples, less than a block
        self._blocks = 0  # judged
        self._peak = FLOOR_DB  # the loudest block, in dB
        self._end: int | None = None  # sample behind the last sound and what is kept after it

    def feed(self, part: Tensor) -> Tensor:
        """The samples, (n,), that can surely be heard now that `part` (m,) has arrived."""
        self._held = torch.cat([self._held, part])
        unjudged = torch.cat([self._unjudged, part])
        complete = len(unjudged) // BLOCK * BLOCK
        self._judge(unjudged[:complete])
        self._unjudged = unjudged[complete:]
        return part[:0] if self._end is None else self._take(self._end - FADE, FADE)

    def finish(self) -> Tensor:
        """The rest, up to the silence at the end; (0,) if nothing at all can be heard."""
        self._judge(F.pad(self._unjudged, (0, -len(self._unjudged) % BLOCK)))
        if self._end is None:  # quieter than the floor, all of it
            return fade_ends(trim_silence(self._held, self._top_db))
        last = self._take(self._end, 0)
        n = min(FADE, len(last))
        return torch.cat([last[: len(last) - n], last[len(last) - n :] * _ramp(n).flip(0)])

    def _judge(self, samples: Tensor) -> None:
        """Look for sound in complete blocks."""
        if not len(samples):
            return
        power = samples.view(-1, BLOCK).square().mean(1).clamp(min=1e-10)
        levels = 10 * power.log10()
        self._peak = max(self._peak, float(levels.max()))
        loud = (levels > max(self._peak - self._top_db, FLOOR_DB)).nonzero()[:, 0].tolist()
        if loud:
            if self._end is None:
                self._start((self._blocks + loud[0] - 1) * BLOCK)
            self._end = (self._blocks + loud[-1] + 1) * BLOCK + KEPT
        self._blocks += len(levels)

    def _start(self, sample: int) -> None:
        """Drop what is in front of a sample, and fade in from there."""
        self._given = max(0, sample)
        begun = self._held[self._given :]
        n = min(FADE, len(begun))
        self._held = torch.cat([begun[:n] * _ramp(n), begun[n:]])

    def _take(self, stop: int, kept: int) -> Tensor:
        """What is held up to the sample `stop`, save so many at the end."""
        n = max(0, min(stop - self._given, len(self._held) - kept))
        taken, self._held = self._held[:n].clone(), self._held[n:]
        self._given += n
        return taken
