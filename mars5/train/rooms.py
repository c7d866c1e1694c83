"""Recordings as people make them: a room, a noise floor, sometimes a narrow microphone.

The teachers are in no room. A voice must be known in spite of one, and not take it along: so the
trainings know speakers by such recordings too, and find clean speech.
"""

from __future__ import annotations

import numpy as np

from mars5.config import SAMPLE_RATE

REVERBERATION = (0.1, 0.5)  # seconds until the tail is 60 dB down
TAIL_DECIBELS = (-22.0, -6.0)  # the tail's energy against the direct sound's
NOISE_DECIBELS = (-45.0, -18.0)  # the noise's power against the speech's
NARROW_SHARE = 0.25
NARROW_HERTZ = (3_500.0, 8_000.0)


def in_a_room(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T,) speech as a microphone in some room may have recorded it; (T,) as well."""
    n = len(wave)
    response = _response(rng)
    size = n + len(response)
    spectrum = np.fft.rfft(wave, size) * np.fft.rfft(response, size)
    if rng.random() < NARROW_SHARE:
        frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
        spectrum /= np.sqrt(1 + (frequencies / rng.uniform(*NARROW_HERTZ)) ** 16)
    heard = np.fft.irfft(spectrum, size)[:n]
    power = np.square(heard).mean() * 10 ** (rng.uniform(*NOISE_DECIBELS) / 10)
    return (heard + _noise(n, rng) * np.sqrt(power)).astype(np.float32)


def _response(rng: np.random.Generator) -> np.ndarray:
    """The direct sound and a tail of noise that dies away."""
    seconds = rng.uniform(*REVERBERATION)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / seconds)
    tail *= np.sqrt(10 ** (rng.uniform(*TAIL_DECIBELS) / 10) / np.square(tail).sum())
    tail[0] = 1.0
    return tail


def _noise(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) noise of power 1, between white and pink."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** rng.uniform(0, 0.5)
    noise = np.fft.irfft(spectrum, n)
    return noise / np.sqrt(np.square(noise).mean())
