"""Recordings in another register, by the WORLD vocoder (https://doi.org/10.1587/transinf.2015EDP7457).

It takes a recording apart into the fundamental frequency, the envelope and the noise, and makes a
recording of the three again; in between each can be moved alone. Its sound is that of a vocoder:
good enough to learn from (PyPI `pyworld`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mars5.config import SAMPLE_RATE
from mars5.conversion.pitch import Register
from mars5.conversion.transposer import Shift
from mars5.errors import MissingExtraError

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Analysis:
    """A recording taken apart.

    Attributes:
        f0: (n,) Hz, 0 where nothing is voiced. envelope, noise: (n, bins).
    """

    f0: Values
    envelope: Values
    noise: Values


def analyse(wave: npt.NDArray[np.float32]) -> Analysis:
    """A wave (T,) at 24 kHz.

    Raises:
        MissingExtraError: pyworld is not installed.
    """
    world, samples = _world(), wave.astype(np.float64)
    rough, times = world.dio(samples, SAMPLE_RATE, f0_floor=60.0, f0_ceil=400.0)
    f0 = world.stonemask(samples, rough, times, SAMPLE_RATE)
    envelope = world.cheaptrick(samples, f0, times, SAMPLE_RATE)
    return Analysis(f0, envelope, world.d4c(samples, f0, times, SAMPLE_RATE))


def transposed(parts: Analysis, own: Register, shift: Shift) -> npt.NDArray[np.float32]:
    """(T,) the recording, of a voice whose register is `own`, moved by `shift`."""
    f0, voiced = parts.f0.copy(), parts.f0 > 0
    middle = np.log(own.median)
    melody = np.log(f0[voiced]) - middle
    f0[voiced] = np.exp(middle + shift.pitch + np.exp(shift.spread) * melody)
    envelope = np.exp(_stretched(np.log(parts.envelope), shift.formants))
    noise = _stretched(parts.noise, shift.formants)
    wave: npt.NDArray[np.float64] = _world().synthesize(f0, envelope, noise, SAMPLE_RATE)
    return wave.astype(np.float32)


def _stretched(spectra: Values, factor: float) -> Values:
    """(n, bins) with what was at a frequency at `factor` times that frequency."""
    places = np.minimum(np.arange(spectra.shape[1]) / factor, spectra.shape[1] - 1)
    below = places.astype(np.int64)
    above = np.minimum(below + 1, spectra.shape[1] - 1)
    share = places - below
    return np.ascontiguousarray(spectra[:, below] * (1 - share) + spectra[:, above] * share)


def _world() -> Any:
    try:
        import pyworld
    except ImportError as error:
        raise MissingExtraError("the WORLD vocoder needs `pip install 'mars5[train]'`") from error
    return pyworld
