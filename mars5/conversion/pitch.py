"""Where a voice lies: the middle and the spread of its fundamental frequency.

By autocorrelation, after Boersma, "Accurate short-term analysis of the fundamental frequency and
the harmonics-to-noise ratio of a sampled sound", IFA Proceedings 17 (1993): that of a windowed
frame, divided by that of the window, is near 1 at the period of a voiced sound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mars5.config import SAMPLE_RATE

LOWEST, HIGHEST = 60.0, 450.0  # Hz
_WINDOW, _HOP = 1200, 240  # samples: three periods of the lowest voice, and 10 ms
_VOICED = 0.6  # autocorrelation of a frame that counts
_OCTAVE_COST = 0.02  # of each octave down: multiples of the period look like the period
_LOUD = 0.1  # of the loudest frame's amplitude
_NEAR = 0.5 * math.log(2)  # from the median; what lies farther off is an error of an octave
_LEAST_FRAMES = 10


@dataclass(frozen=True)
class Register:
    """Where a voice lies.

    Attributes:
        median: of the fundamental frequency, Hz.
        spread: standard deviation of its natural logarithm.
    """

    median: float
    spread: float


def register(wave: Tensor) -> Register | None:
    """That of a wave (T,) at 24 kHz; None where next to nothing is voiced."""
    frequencies = fundamentals(wave)
    if len(frequencies) < _LEAST_FRAMES:
        return None
    logs = frequencies.log()
    near = logs[(logs - logs.median()).abs() < _NEAR]
    return Register(float(near.median().exp()), float(near.std(correction=0)))


def fundamentals(wave: Tensor) -> Tensor:
    """(n,) Hz: the fundamental frequency in each of the voiced frames of a wave (T,)."""
    wave = F.pad(wave, (0, max(0, _WINDOW - len(wave))))
    frames = wave.unfold(0, _WINDOW, _HOP)
    frames = frames - frames.mean(1, keepdim=True)
    level = frames.abs().amax(1)
    window = torch.hann_window(_WINDOW).to(frames)
    shortest, longest = int(SAMPLE_RATE / HIGHEST), math.ceil(SAMPLE_RATE / LOWEST)
    found = _autocorrelation(frames * window) / _autocorrelation(window[None])
    found = found[:, shortest - 1 : longest + 2]
    lags = torch.arange(shortest, longest + 1)
    inner = found[:, 1:-1]
    peak = (inner > found[:, :-2]) & (inner >= found[:, 2:])
    score = torch.where(peak, inner - _OCTAVE_COST * lags.to(inner).log2(), -torch.inf)
    best = score.argmax(1)
    strength = inner.gather(1, best[:, None])[:, 0]
    kept = peak.any(1) & (strength > _VOICED) & (level > _LOUD * level.max())
    return SAMPLE_RATE / (lags[best] + _offset(found, best))[kept]


def _autocorrelation(frames: Tensor) -> Tensor:
    """(n, T) -> (n, T): by lag, divided by that at lag 0."""
    size = frames.shape[1]
    power = torch.fft.rfft(frames, 2 * size).abs().square()
    by_lag = torch.fft.irfft(power)[:, :size]
    return by_lag / by_lag[:, :1].clamp(min=1e-9)


def _offset(found: Tensor, best: Tensor) -> Tensor:
    """(n,) how far from lag `best` the parabola through its neighbours has its top, -0.5 to 0.5."""
    before, here, after = (found.gather(1, best[:, None] + i)[:, 0] for i in range(3))
    bend = (before - 2 * here + after).clamp(max=-1e-9)
    return (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
