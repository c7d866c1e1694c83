"""Recordings made for the tests of audio at the border."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from mars5.audio import (
    load_reference,
)
from mars5.errors import AudioInputError

SR = 24_000
KINDS = [
    ("WAV", "PCM_16"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def tone(seconds: float = 1.0, rate: int = SR, level: float = 0.3) -> np.ndarray:
    """A tone of 220 Hz in a little noise."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (level * np.sin(2 * np.pi * 220 * t) + 0.01 * noise).astype(np.float32)


def encode(wave: np.ndarray, kind: str = "WAV", subtype: str = "PCM_16", rate: int = SR) -> bytes:
    buffer = io.BytesIO()
    channels = 1 if wave.ndim == 1 else wave.shape[1]
    with sf.SoundFile(buffer, "w", rate, channels, subtype, format=kind) as file:
        for start in range(0, len(wave), rate):
            file.write(wave[start : start + rate])
    return buffer.getvalue()


def refused(audio: Any, match: str, **settings: Any) -> None:
    with pytest.raises(AudioInputError, match=match):
        load_reference(audio, **settings)


def flac_claiming(frames: int, wave: np.ndarray) -> bytes:
    data = bytearray(encode(wave, "FLAC"))
    data[21] &= 0xF0
    data[22:26] = struct.pack(">I", frames)
    return bytes(data)
