"""What is measured on a recording of any length, in one pass and little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from mars5.audio import FULL_SCALE, SILENCE, AudioInput, Mono, stream_reference
from mars5.config import SAMPLE_RATE
from mars5.errors import AudioInputError

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

MAX_SECONDS = 4 * 3600.0  # measured, that is 100 MB
FRAMES_PER_SECOND = 50
BAND_HZ = 500
N_BANDS = SAMPLE_RATE // 2 // BAND_HZ
HUM_HZ = (40, 400)  # the part of the long spectra that is kept, one bin for each Hz

_FRAME = SAMPLE_RATE // FRAMES_PER_SECOND
_PIECE = SAMPLE_RATE // 2  # whole frames, and half a window of the long spectra
_WINDOW = np.hanning(_FRAME + 1)[:-1].astype(np.float32)
_LONG_WINDOW = np.hanning(2 * _PIECE + 1)[:-1].astype(np.float32)
_LOWEST_BIN = 3  # bins are 50 Hz apart; below lie offset, rumble, mains hum and their leakage
_FLAT_RUN = 4  # so many equal samples at the top are clipped, whatever their level


@dataclass(frozen=True)
class Measures:
    """Facts of one recording, most of them for each of its n frames of 20 ms.

    Powers are mean squares with full scale 1; all but `clipped` and `offset` are measured at
    24 kHz.

    Attributes:
        name: what messages call the recording.
        seconds: its length.
        rate: its own sample rate in Hz.
        bands: (n, 24) power in bands of 500 Hz; the first begins at 150 Hz.
        weighted: (n,) power with the K weighting of ITU-R BS.1770.
        clipped: (n,) share of the samples that are cut off at full scale, or flat at a peak.
        offset: mean of all samples.
        low: (m, 361) power at 40 to 400 Hz, one bin a Hz, in windows of 1 s, every 0.5 s.
    """

    name: str
    seconds: float
    rate: int
    bands: Floats
    weighted: Floats
    clipped: Floats
    offset: float
    low: Floats


def measure(audio: AudioInput) -> Measures:
    """Measure a recording of up to 4 hours, block by block.

    Raises:
        AudioInputError: not usable as audio, as in `load_reference`, or without any signal.
    """
    with stream_reference(audio, max_seconds=MAX_SECONDS) as (name, rate, blocks):
        raw = _Raw(rate)
        bands, weighted, low = [], [], []
        last = None
        for piece in _pieces(_at_24_khz(raw.watch(blocks), rate)):
            power = _powers(piece)
            bands.append(_in_bands(power))
            weighted.append(power @ K_WEIGHTS)
            if last is not None and len(piece) == _PIECE:
                low.append(_low_spectrum(np.concatenate([last, piece])))
            last = piece
    if raw.highest - raw.lowest < 2 * SILENCE:
        raise AudioInputError(
            f"{name} is silent: its mixed-down signal never leaves {SILENCE:g} of full scale; "
            "give audible speech"
        )
    frames = np.concatenate(bands)
    return Measures(
        name,
        raw.samples / rate,
        rate,
        frames,
        np.concatenate(weighted),
        raw.clipped_share(len(frames)),
        raw.total / raw.samples,
        np.stack(low) if low else np.zeros((0, HUM_HZ[1] - HUM_HZ[0] + 1), np.float32),
    )


def read_span(audio: AudioInput, start: float, end: float) -> Floats:
    """The part of a recording from `start` to `end`, in seconds: (T,) float32 at 24 kHz.

    The whole is read up to there, since decoders that jump are not exact.
    """
    first, stop = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
    parts, at = [np.zeros(0, np.float32)], 0
    with stream_reference(audio, max_seconds=MAX_SECONDS) as (_, rate, blocks):
        for chunk in _at_24_khz(blocks, rate):
            if at + len(chunk) > first:
                parts.append(chunk[max(0, first - at) : stop - at])
            at += len(chunk)
            if at >= stop:
                break
    return np.concatenate(parts)


class _Raw:
    """What must be seen before resampling: offset, extremes and clipped samples."""

    def __init__(self, rate: int) -> None:
        self.samples = 0
        self.total = 0.0
        self.lowest, self.highest = np.inf, -np.inf
        self._rate = rate
        self._counts: list[tuple[int, npt.NDArray[np.int64]]] = []

    def watch(self, blocks: Iterable[Mono]) -> Iterator[Mono]:
        for block in blocks:
            at = np.flatnonzero(_clipped(block))
            if at.size > 0:
                frames = (self.samples + at) * FRAMES_PER_SECOND // self._rate
                self._counts.append((int(frames[0]), np.bincount(frames - frames[0])))
            self.samples += len(block)
            self.total += float(block.sum(dtype=np.float64))
            self.lowest = min(self.lowest, float(block.min()))
            self.highest = max(self.highest, float(block.max()))
            yield block

    def clipped_share(self, n_frames: int) -> Floats:
        """(n,): the last, incomplete frame counts to the one before."""
        counts = np.zeros(n_frames, np.float32)
        for first, found in self._counts:
            places = np.minimum(first + np.arange(len(found)), n_frames - 1)
            np.add.at(counts, places, found)
        return counts * (FRAMES_PER_SECOND / self._rate)


def _clipped(block: Mono) -> Flags:
    size = np.abs(block)
    clipped = size >= FULL_SCALE
    peak = float(size.max())
    if peak > 0.05 and block.size >= _FLAT_RUN:  # lower ones may be flat by few bits
        same = (np.diff(block) == 0) & (size[1:] >= 0.98 * peak)
        runs = same[:-2] & same[1:-1] & same[2:]
        for i in range(_FLAT_RUN):
            clipped[i : i + len(runs)] |= runs
    return clipped


def _at_24_khz(blocks: Iterable[Mono], rate: int) -> Iterator[Floats]:
    if rate == SAMPLE_RATE:
        yield from (block.astype(np.float32) for block in blocks)
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1)
    for block in blocks:
        yield stream.resample_chunk(block.astype(np.float32))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _pieces(chunks: Iterable[Floats]) -> Iterator[Floats]:
    """Half seconds, and what is left."""
    rest = np.zeros(0, np.float32)
    for chunk in chunks:
        rest = np.concatenate([rest, chunk])
        while len(rest) >= _PIECE:
            yield rest[:_PIECE]
            rest = rest[_PIECE:]
    yield rest


def _powers(piece: Floats) -> Floats:
    """(n, 241) power of the bins of each complete frame; they sum to its mean square."""
    frames = piece[: len(piece) // _FRAME * _FRAME].reshape(-1, _FRAME)
    spectrum = np.fft.rfft(frames * _WINDOW, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2) * (2 / (_FRAME * np.square(_WINDOW).sum()))
    return power.astype(np.float32)


def _in_bands(power: Floats) -> Floats:
    heard = power[:, : _FRAME // 2].copy()
    heard[:, :_LOWEST_BIN] = 0
    return heard.reshape(-1, N_BANDS, _FRAME // 2 // N_BANDS).sum(2)


def _low_spectrum(second: Floats) -> Floats:
    bins = np.fft.rfft(second * _LONG_WINDOW)[HUM_HZ[0] : HUM_HZ[1] + 1]
    power = np.abs(bins) ** 2 * (2 / (len(second) * np.square(_LONG_WINDOW).sum()))
    return power.astype(np.float32)


def _k_weights() -> Floats:
    """Gain of the two K filters of ITU-R BS.1770-4 (annex 1, tables 1 and 2) at each bin."""
    z = np.exp(-2j * np.pi * np.arange(_FRAME // 2 + 1) * FRAMES_PER_SECOND / 48_000)
    shelf = (1.53512485958697 - 2.69169618940638 * z + 1.19839281085285 * z**2) / (
        1 - 1.69065929318241 * z + 0.73248077421585 * z**2
    )
    highpass = (1 - 2 * z + z**2) / (1 - 1.99004745483398 * z + 0.99007225036621 * z**2)
    gain: Floats = (np.abs(shelf * highpass) ** 2).astype(np.float32)
    return gain


K_WEIGHTS = _k_weights()
