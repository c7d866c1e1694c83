"""Audio that is read: every format, resampling, layouts."""

from __future__ import annotations

import io
import struct
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
import torch
from audio_made import KINDS, SR, encode, flac_claiming, tone

from mars5 import audio
from mars5.audio import load_reference, stream_reference
from mars5.errors import AudioInputError, ConfigError


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


def test_bytes_of_any_kind_and_open_files(tmp_path: Path) -> None:
    data = encode(tone(1))
    (tmp_path / "voice").write_bytes(data)
    wanted = load_reference(data)
    with (tmp_path / "voice").open("rb") as file, tempfile.NamedTemporaryFile() as unnamed:
        unnamed.write(data)
        unnamed.seek(0)
        for held in (bytearray(data), memoryview(data), io.BytesIO(data), file, unnamed):
            for _ in range(2):  # a file is put back to where it was
                assert torch.equal(load_reference(held), wanted)
            with stream_reference(held, max_seconds=2) as (name, rate, blocks):
                assert (name, rate) == ("the audio data", SR)
                assert np.array_equal(np.concatenate([*blocks]), wanted.numpy())
        file.seek(7)
        with pytest.raises(AudioInputError, match="binary data"):
            load_reference(file)
        assert file.tell() == 7


def test_open_files_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.BytesIO()
    closed.close()
    for file, message in (
        (closed, "file object cannot be read: .*closed"),
        (io.StringIO("text"), "gives str, not bytes: open it with mode 'rb'"),
        (SimpleNamespace(read=bytes), "file object cannot be read"),
    ):
        with pytest.raises(AudioInputError, match=message):
            load_reference(file)  # type: ignore[arg-type]
    monkeypatch.setattr(audio, "MAX_FILE_BYTES", 2**20)
    with pytest.raises(AudioInputError, match="holds more than 1 MiB"):
        load_reference(io.BytesIO(bytes(2**20 + 1)))


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
