"""Waveforms at the border of the library: read, mix down, resample, trim, write."""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F

from mars5.audio_bytes import FileBytes, given_bytes
from mars5.audio_files import (
    MAX_FILE_BYTES,
    MAX_RATE,
    MIN_RATE,
    check_duration,
    check_layout,
    decode,
    open_regular,
    opened,
    read_bytes,
)
from mars5.config import SAMPLE_RATE
from mars5.errors import AudioInputError, ConfigError
from mars5.files import replacing

Mono: TypeAlias = npt.NDArray[np.floating[Any]]
Samples: TypeAlias = torch.Tensor | npt.NDArray[Any]
Content: TypeAlias = bytes | bytearray | memoryview | BinaryIO
AudioInput: TypeAlias = Samples | tuple[Samples, int] | str | os.PathLike[str] | Content

_log = logging.getLogger("mars5")

_DATA = "the audio data"  # what messages call bytes
_BLOCK = 2**15  # samples

_ABSURD = 1e3  # full scale is 1
SILENCE = 1e-4  # -80 dB under full scale: dither alone stays below
FULL_SCALE = 0.999
_CLIPPED_SHARE = 1e-3
_LOW_RATE = 16_000  # below, the upper half of speech is missing
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = {"int16": (0, 2**15), "int32": (0, 2**31), "uint8": (128, 2**7)}

_TRIM_FRAME, _TRIM_HOP = 2048, 512
_WRITES = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}


def load_reference(audio: AudioInput, *, max_seconds: float = 60.0) -> Tensor:
    """Bring reference audio of any kind to mono at 24 kHz; the caller's data is never changed.

    Args:
        audio: samples at 24 kHz, a pair (samples, rate in Hz), the path of a WAV, FLAC, OGG or
            MP3 file, or the bytes of one, also as an open binary file. Samples are a tensor or
            array (T,), (C, T), (T, C) or (1, C, T) with at most 16 channels, of floats with full
            scale 1, or of int16, int32 or uint8; the channels are averaged.
        max_seconds: longer audio is refused, before it is decoded or resampled.

    Returns:
        (T,) float32 on the CPU. Clipping and rates under 16 kHz are logged as warnings.

    Raises:
        AudioInputError: unreadable, not audio, damaged, cut short, silent, shorter than 0.2 s,
            longer than `max_seconds`, not finite, or with a rate outside 4-192 kHz.
        ConfigError: `max_seconds` is not a positive number.
    """
    if not 0 < max_seconds < math.inf:  # also refuses NaN
        raise ConfigError(f"max_seconds must be a positive number, got {max_seconds!r}")
    mono, rate, name = _open(audio, max_seconds)
    _check_level(mono, name)
    if rate < _LOW_RATE:
        _log.warning("%s has only %d Hz: the cloned voice will sound muffled", name, rate)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    return torch.from_numpy(mono.astype(np.float32))


@contextmanager
def stream_reference(
    audio: AudioInput, *, max_seconds: float
) -> Iterator[tuple[str, int, Iterator[Mono]]]:
    """Reference audio block by block at its own rate, so that an hour needs no memory.

    Args:
        audio, max_seconds: as in `load_reference`; a file at a path may have any size.

    Returns:
        What messages call the audio, its rate in Hz, and the mono blocks, (n,) floats each.

    Raises:
        AudioInputError: as `load_reference`, but for silence, which only the caller can tell.
            What the header shows comes at once, the rest while the blocks are read.
    """
    if isinstance(audio, (str, os.PathLike)):
        path = _local_path(audio)
        with (
            open_regular(Path(path)) as file,
            opened(FileBytes(file), file, path, max_seconds) as (rate, blocks),
        ):
            yield path, rate, _judged(blocks, path)
    elif (data := given_bytes(audio, MAX_FILE_BYTES)) is not None:
        with opened(data, io.BytesIO(data), _DATA, max_seconds) as (rate, blocks):
            yield _DATA, rate, _judged(blocks, _DATA)
    else:
        mono, rate, name = _open(audio, max_seconds)
        parts = (mono[at : at + _BLOCK] for at in range(0, len(mono), _BLOCK))
        yield name, rate, _judged(parts, name)


def _judged(blocks: Iterable[Mono], name: str) -> Iterator[Mono]:
    start = 0
    for block in blocks:
        _check_finite(block, name, start)
        start += len(block)
        yield block


def _open(audio: AudioInput, max_seconds: float) -> tuple[Mono, int, str]:
    """Mono samples, their rate, and what messages call them."""
    if isinstance(audio, (torch.Tensor, np.ndarray)):
        name = "the audio tensor" if isinstance(audio, torch.Tensor) else "the audio array"
        return _mix_down(audio, SAMPLE_RATE, name, max_seconds), SAMPLE_RATE, name
    if isinstance(audio, tuple):
        samples, rate = _check_pair(audio)
        return _mix_down(samples, rate, "the audio", max_seconds), rate, "the audio"
    if isinstance(audio, (str, os.PathLike)):
        path = _local_path(audio)
        return *decode(read_bytes(Path(path)), path, max_seconds), path
    data = given_bytes(audio, MAX_FILE_BYTES)
    if data is None:
        raise AudioInputError(
            "audio must be a tensor, an array, a pair (samples, rate), a path, bytes or a binary "
            f"file, got {type(audio).__name__}"
        )
    return *decode(data, _DATA, max_seconds), _DATA


def _local_path(audio: str | os.PathLike[str]) -> str:
    path = os.fsdecode(audio)
    if "://" in path or path.startswith("data:"):
        raise AudioInputError(
            f"{path[:80]!r} is a URL; only local files are read: download it first"
        )
    return path


def _check_pair(pair: tuple[Any, ...]) -> tuple[Samples, int]:
    if len(pair) == 2:
        samples, rate = pair
        whole = isinstance(rate, (int, np.integer)) and not isinstance(rate, bool)
        if isinstance(samples, (torch.Tensor, np.ndarray)) and whole:
            return samples, int(rate)
    found = ", ".join(type(item).__name__ for item in pair)
    raise AudioInputError(
        "a pair of audio must be (tensor or array, sample rate as a whole number of Hz), in this "
        f"order, got ({found})"
    )


def _mix_down(samples: Samples, rate: int, name: str, max_seconds: float) -> Mono:
    """Samples of any accepted shape and type to (T,), full scale 1; policy comes before work."""
    dtype = samples.dtype
    kind = dtype.name if isinstance(dtype, np.dtype) else str(dtype).removeprefix("torch.")
    if kind not in _FLOATS and kind not in _INTEGERS:
        raise AudioInputError(
            f"{name} has samples of type {kind}; give float (full scale 1), int16, int32 or uint8"
        )
    shape = tuple(samples.shape)
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 1:
        shape = (1, *shape)
    if len(shape) != 2 or (shape[0] == shape[1] > 1):
        raise AudioInputError(
            f"{name} has the shape {tuple(samples.shape)}; give (samples,), (channels, samples) "
            "or (samples, channels) of one recording"
        )
    channels, frames = sorted(shape)
    if channels == 0:
        channels, frames = 1, 0
    check_layout(name, rate, channels)
    check_duration(name, frames, rate, max_seconds)
    wave = _to_numpy(samples).reshape(shape)
    if kind in _INTEGERS:
        zero, scale = _INTEGERS[kind]
        wave = (wave.astype(np.float32) - zero) / scale
    with np.errstate(invalid="ignore", over="ignore"):  # judged later, as NaN or infinite
        mono: Mono = wave.mean(int(np.argmin(shape)), dtype=np.result_type(wave, np.float32))
    return mono


def _to_numpy(samples: Samples) -> npt.NDArray[Any]:
    if isinstance(samples, np.ndarray):
        return samples
    samples = samples.detach().cpu()
    return (samples.float() if samples.dtype == torch.bfloat16 else samples).numpy()


def _check_finite(mono: Mono, name: str, start: int = 0) -> None:
    """Refuse samples that are not finite or absurdly large; the first is number `start`."""
    size = np.abs(mono)
    if not np.isfinite(size).all():
        at = int(np.argmin(np.isfinite(size)))
        raise AudioInputError(
            f"{name} holds {mono[at]} at sample {start + at}; samples must be finite"
        )
    if size.max() > _ABSURD:
        raise AudioInputError(
            f"{name} reaches {size.max():.3g} where full scale is 1; divide the samples by their "
            "full scale (32768 for 16 bits)"
        )


def _check_level(mono: Mono, name: str) -> None:
    """Refuse what is no signal; warn of clipping."""
    _check_finite(mono, name)
    if np.abs(mono - mono.mean()).max() < SILENCE:  # the mean: an offset alone is silence too
        raise AudioInputError(
            f"{name} is silent: its mixed-down signal never leaves {SILENCE:g} of full scale; "
            "give audible speech"
        )
    clipped = float((np.abs(mono) >= FULL_SCALE).mean())
    if clipped > _CLIPPED_SHARE:
        _log.warning(
            "%s seems clipped: %.1f %% of its samples reach full scale; a quieter recording "
            "clones better",
            name,
            100 * clipped,
        )


def trim_interval(audio: Tensor, top_db: float) -> tuple[int, int]:
    """Where the sound is: from the first to the last frame near the loudest.

    Frames have 2048 samples, hop 512, centred with reflected edges; a frame counts if the mean
    square of the channels' mean lies less than `top_db` under that of the loudest frame.

    Args:
        audio: (n,) or (channels, n).
        top_db: decibels under the peak.

    Returns:
        Half-open (start, end) in samples. Signals of at most 1024 samples, which have no complete
        frame to judge, and all-zero ones are kept whole; NaN gives (0, 0).

    Raises:
        AudioInputError: `audio` has another shape.
    """
    if audio.ndim not in (1, 2) or (audio.ndim == 2 and audio.shape[0] == 0):
        raise AudioInputError(f"trim takes (n,) or (channels, n), got {tuple(audio.shape)}")
    mono = audio.float() if audio.ndim == 1 else audio.float().mean(0)
    n = len(mono)
    if n <= _TRIM_FRAME // 2:  # the reflection would need more samples than there are
        return 0, n
    edge = (_TRIM_FRAME // 2, _TRIM_FRAME // 2)
    padded = F.pad(mono[None], edge, mode="reflect")[0]
    power = padded.unfold(0, _TRIM_FRAME, _TRIM_HOP).square().mean(-1).clamp(min=1e-10)
    level = 10 * power.log10() - 10 * power.max().log10()
    loud = (level > -top_db).nonzero().flatten().tolist()
    if not loud:
        return 0, 0
    return loud[0] * _TRIM_HOP, min(n, (loud[-1] + 1) * _TRIM_HOP)


def trim_silence(audio: Tensor, top_db: float) -> Tensor:
    """The part of `audio`, (n,) or (channels, n), in its `trim_interval`; a view, not a copy."""
    start, end = trim_interval(audio, top_db)
    return audio[..., start:end]


def to_wav_bytes(audio: Tensor, sample_rate: int = SAMPLE_RATE) -> bytes:
    """A 16-bit PCM WAV file in memory; arguments and errors as in `write_audio`."""
    return _encode(audio, sample_rate, ".wav")


def write_audio(
    path: str | os.PathLike[str], audio: Tensor, sample_rate: int = SAMPLE_RATE
) -> None:
    """Write an audio file: the whole of it appears under its name, or nothing does.

    Args:
        path: its suffix decides the format: .wav or .flac (16 bits), .ogg (Vorbis) or .mp3.
        audio: (T,) or (1, T) floats, full scale 1; louder samples are clipped.
        sample_rate: in Hz, 4000 to 192000; MP3 and Vorbis take fewer.

    Raises:
        AudioInputError: `audio` has another shape or type, no samples, or some not finite.
        ConfigError: the suffix, rate or place will not do; an output path is a setting.
    """
    target = Path(os.fsdecode(path))
    data = _encode(audio, sample_rate, target.suffix.lower())
    try:
        with replacing(target) as temporary:
            temporary.write_bytes(data)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ConfigError(
            f"cannot write {os.fspath(target)!r}: {error}; give a file name in an existing folder "
            "that you may write to and that has space"
        ) from error


def _encode(audio: Tensor, sample_rate: int, suffix: str) -> bytes:
    kind, subtype = file_format(suffix)
    if not isinstance(sample_rate, int) or not MIN_RATE <= sample_rate <= MAX_RATE:
        raise ConfigError(
            f"sample_rate must be a whole number from {MIN_RATE} to {MAX_RATE}, got {sample_rate!r}"
        )
    pcm = to_pcm16(audio)
    buffer = io.BytesIO()
    try:
        with sf.SoundFile(buffer, "w", sample_rate, 1, subtype, format=kind) as file:
            # libsndfile crashes on minutes of Vorbis in one write, so a second at a time
            for start in range(0, len(pcm), sample_rate):
                file.write(pcm[start : start + sample_rate])
    except sf.LibsndfileError as error:
        raise ConfigError(
            f"{suffix} cannot hold audio at sample_rate = {sample_rate} ({error.error_string}); "
            "use 24000 or write .wav"
        ) from error
    return buffer.getvalue()


def file_format(suffix: str) -> tuple[str, str]:
    """Format and subtype, as libsndfile calls them, of files that end so.

    Raises:
        ConfigError: audio files do not end so.
    """
    formats = {s: f for s, f in _WRITES.items() if sf.check_format(*f)}  # old ones lack MP3
    if suffix not in formats:
        raise ConfigError(
            f"an audio file cannot end in {suffix!r}; the formats are {', '.join(formats)}"
        )
    return formats[suffix]


def to_pcm16(audio: Tensor) -> npt.NDArray[np.int16]:
    """16-bit samples (T,) of floats (T,) or (1, T), full scale 1; louder ones are clipped.

    Raises:
        AudioInputError: another shape or type, no samples, or some not finite.
    """
    fits = isinstance(audio, torch.Tensor) and audio.is_floating_point()
    if not fits or audio.ndim not in (1, 2) or (audio.ndim == 2 and len(audio) != 1):
        found = f"{tuple(audio.shape)} of {audio.dtype}" if fits else type(audio).__name__
        raise AudioInputError(f"audio to write must be a float tensor (T,) or (1, T), got {found}")
    wave = audio.detach().float().flatten()
    if not len(wave) or not bool(wave.isfinite().all()):
        raise AudioInputError("audio to write has no samples, or holds NaN or infinite ones")
    pcm = (wave * 2**15).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)
    values: npt.NDArray[np.int16] = pcm.cpu().numpy()
    return values
