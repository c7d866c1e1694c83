"""Audio that is read: every format, resampling, layouts."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from audio_made import KINDS, SR, encode, flac_claiming, tone

from mars5.audio import (
    load_reference,
)
from mars5.errors import ConfigError


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_every_format_is_read_from_bytes_and_from_a_path(
    tmp_path: Path, kind: str, subtype: str
) -> None:
    wave = tone(2)
    data = encode(wave, kind, subtype)
    (tmp_path / "voice").write_bytes(data)
    loaded = load_reference(data)
    assert loaded.dtype == torch.float32
    assert loaded.shape == (2 * SR,)
    assert np.corrcoef(loaded.numpy(), wave)[0, 1] > 0.99
    assert torch.equal(load_reference(tmp_path / "voice"), loaded)
    assert torch.equal(load_reference(str(tmp_path / "voice")), loaded)


def test_blocks_join_without_a_trace() -> None:
    data = encode(tone(8), "MP3", "MPEG_LAYER_III")
    whole, _ = sf.read(io.BytesIO(data), dtype="float32")
    assert np.abs(load_reference(data).numpy() - whole).max() < 1e-6


def test_flac_of_unstated_length_is_read() -> None:
    assert load_reference(flac_claiming(0, tone(2))).shape == (2 * SR,)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_wav_from_a_pipe_is_read(size: int) -> None:
    data = bytearray(encode(tone(1)))
    struct.pack_into("<I", data, 40, size)
    assert load_reference(bytes(data)).shape == (SR,)


def test_mp3_of_constant_rate_without_a_count_is_read() -> None:
    buffer = io.BytesIO()
    constant = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
    with sf.SoundFile(buffer, "w", SR, 1, format="MP3", **constant) as file:
        file.write(tone(2))
    data = buffer.getvalue()
    first = data.find(data[:2], 10)
    tagged = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10) + data[first:] + b"TAG" + bytes(125)
    assert len(load_reference(tagged)) == pytest.approx(2 * SR, abs=0.1 * SR)


def test_resampled_length_and_pitch() -> None:
    loaded = load_reference((tone(1, 44_100), 44_100))
    assert loaded.shape == (SR,)
    assert torch.fft.rfft(loaded).abs().argmax() == 220


def test_bare_samples_are_taken_as_they_are() -> None:
    wave = tone()
    assert np.array_equal(load_reference(wave).numpy(), wave)
    tensor = torch.from_numpy(wave).requires_grad_()
    assert torch.equal(load_reference(tensor), tensor.detach())


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_callers_data_is_never_shared_or_changed(kind: str) -> None:
    wave = tone()
    before = wave.copy()
    loaded = load_reference(wave if kind == "numpy" else torch.from_numpy(wave))
    loaded.zero_()
    assert np.array_equal(wave, before)


@pytest.mark.parametrize(
    "view", [tone()[::-1], tone().astype(">f4"), np.broadcast_to(tone(), (2, SR))]
)
def test_unusual_memory_layouts(view: np.ndarray) -> None:
    expected = np.ascontiguousarray(view if view.ndim == 1 else view[0], np.float32)
    assert np.array_equal(load_reference(view).numpy(), expected)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_max_seconds_must_make_sense(seconds: float) -> None:
    with pytest.raises(ConfigError, match="max_seconds"):
        load_reference(tone(), max_seconds=seconds)
