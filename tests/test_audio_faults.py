"""Bad recordings, and the message that each gets."""

from __future__ import annotations

import io
import logging
import os
import random
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audio_made import KINDS, SR, encode, flac_claiming, refused, tone

from mars5 import audio_files
from mars5.audio import (
    load_reference,
)


@pytest.mark.parametrize(
    "audio", [torch.zeros(0), np.zeros((2, 0)), np.zeros((0, 2)), encode(np.zeros(0))]
)
def test_zero_samples(audio: Any) -> None:
    refused(audio, "no samples")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["array", "stereo", "file"])
def test_not_finite(value: float, kind: str) -> None:
    wave = tone()
    wave[77] = value
    if kind == "stereo":
        wave = np.stack([wave, -wave])  # infinities cancel to NaN
    refused(encode(wave, "WAV", "FLOAT") if kind == "file" else wave, "sample 77")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_absurd_magnitude(dtype: type) -> None:
    wave = tone().astype(dtype)
    wave[5] = 1e30
    refused(wave, "1e\\+30 where full scale is 1")
    refused(32768 * tone(), "32768 for 16 bits")
    refused(np.full(SR, 1e300) * np.sign(tone()), "full scale")


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(SR),
        np.full(SR, 0.5),
        np.stack([tone(), -tone()]),
        encode(np.random.default_rng(0).integers(-1, 2, SR).astype(np.int16)),
    ],
    ids=["zeros", "offset", "cancelling", "dither"],
)
def test_silence(audio: Any) -> None:
    refused(audio, "silent")


def test_too_short() -> None:
    refused(tone(0.1), r"0\.100 s.*at least 0\.2")
    refused((tone(0.19, 48_000), 48_000), "at least")
    refused(encode(tone(0.1)), "at least")
    assert load_reference(tone(0.2)).shape == (4800,)


def test_policy_comes_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_work(*_: Any, **__: Any) -> None:
        pytest.fail("worked on audio that policy refuses")

    monkeypatch.setattr(audio_files, "_blocks", no_work)
    monkeypatch.setattr("mars5.audio._to_numpy", no_work)
    monkeypatch.setattr("mars5.audio.soxr.resample", no_work)
    refused(torch.zeros(1).expand(600 * SR), "600.0 s or more; the limit is 60 s")
    refused((np.broadcast_to(np.float32(0), 600 * 8000), 8000), "600.0 s")
    refused(encode(np.zeros(61 * 8000, np.int16), rate=8000), "61.0 s")
    refused(tone(3), "limit is 2.5 s", max_seconds=2.5)


def test_clipping_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mars5"):
        load_reference(tone(level=0.9))
        assert not caplog.records
        load_reference(np.clip(tone(level=3), -1, 1))
    assert "clipped" in caplog.text


def test_channels() -> None:
    eight = np.stack([tone()] * 8, 1)
    assert load_reference(eight).numpy() == pytest.approx(tone(), abs=1e-6)
    assert load_reference(encode(eight)).numpy() == pytest.approx(tone(), abs=1e-4)
    assert load_reference(np.stack([tone()] * 16)).shape == (SR,)
    refused(np.stack([tone()] * 17), "17 channels; the limit is 16")
    refused(encode(np.stack([tone()] * 17, 1)), "17 channels; the limit is 16")


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_integer_arrays(make: Any) -> None:
    wave = tone()
    for dtype, zero, scale in [(np.int16, 0, 2**15), (np.int32, 0, 2**31), (np.uint8, 128, 128)]:
        loaded = load_reference(make(np.round(wave.astype(float) * scale + zero).astype(dtype)))
        assert loaded.numpy() == pytest.approx(wave, abs=0.6 / min(scale, 2**24))
    assert load_reference(make(wave.astype(np.float16))).numpy() == pytest.approx(wave, abs=1e-3)
    refused(make(np.ones(SR, np.int64)), "int64")
    refused(make(np.ones(SR, bool)), "bool")
    refused(make(np.ones(SR, np.complex64)), "complex64")


def test_bfloat16() -> None:
    wave = torch.from_numpy(tone()).bfloat16()
    assert torch.equal(load_reference(wave), wave.float())


def test_rates(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mars5"):
        load_reference((tone(1, 16_000), 16_000))
        assert not caplog.records
        assert load_reference((tone(1, 8000), 8000)).shape == (SR,)
    assert "8000 Hz" in caplog.text
    for rate in (0, -SR, 3999, 192_001, 2**40):
        refused((tone(), rate), "limits are 4000 and 192000 Hz")
    refused(encode(tone(1, 2000), rate=2000), "2000 Hz")
    assert load_reference((tone(1, 192_000), 192_000)).shape == (SR,)


def test_shapes() -> None:
    wave = tone()
    pair = np.stack([wave, wave / 2])
    for shaped in (wave[None], wave[:, None], wave[None, None]):
        assert np.array_equal(load_reference(shaped).numpy(), wave)
    for shaped in (pair, pair.T, pair[None]):
        assert load_reference(shaped).numpy() == pytest.approx(0.75 * wave, abs=1e-6)
    refused(np.stack([wave, wave])[:, None], "of one recording")
    refused(np.zeros((16, 16)), "of one recording")
    refused(np.zeros(()), "of one recording")
    refused(np.zeros((1, 1, 1, SR)), "of one recording")


@pytest.mark.parametrize("pair", [(SR, tone()), (tone(), 24e3), (tone(),), (tone(), True), ()])
def test_malformed_pairs(pair: Any) -> None:
    refused(pair, "sample rate as a whole number")


@pytest.mark.parametrize("audio", [None, 3, [0.1] * SR, {}])
def test_other_types(audio: Any) -> None:
    refused(audio, "must be a tensor")


@pytest.mark.parametrize("share", [0.95, 0.5, 0.2])
@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_truncated(kind: str, subtype: str, share: float) -> None:
    data = encode(tone(4), kind, subtype)
    refused(data[: int(share * len(data))], "cut short")


def test_ogg_without_its_last_page() -> None:
    data = encode(tone(4), "OGG", "VORBIS")
    refused(data[: data.rfind(b"OggS")], "not marked as the end")


def test_flac_claims_more_than_it_holds() -> None:
    refused(flac_claiming(3 * SR, tone(2)), "claims 72000 frames, 48000 could be decoded")


@pytest.mark.parametrize("claim", [None, 0, 2 * SR], ids=["true", "unstated", "forged"])
def test_compression_bomb(claim: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = np.zeros(600 * SR, np.int16)
    wave[::100] = 3000
    data = encode(wave, "FLAC") if claim is None else flac_claiming(claim, wave)
    decoded = []
    read = audio_files._blocks

    def counted(*arguments: Any) -> Iterator[audio_files.Wave]:
        for block in read(*arguments):
            decoded.append(len(block))
            yield block

    monkeypatch.setattr(audio_files, "_blocks", counted)
    if claim:
        assert load_reference(data).shape == (claim,)
    else:
        refused(data, "the limit is 60 s")
    assert sum(decoded) <= 60 * SR + 1


@pytest.mark.parametrize("count", [10**9, 2000, 40, 0])
def test_forged_mp3_counts(count: int) -> None:
    data = bytearray(encode(tone(4), "MP3", "MPEG_LAYER_III"))
    struct.pack_into(">I", data, data.find(b"Xing") + 8, count)
    refused(bytes(data), "false or no length|cut short|the limit is 60 s")


def encrypted_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.wav", b"x" * 99)
    data = bytearray(buffer.getvalue())
    data[6] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\0\0\0\x20ftypisom" + bytes(99), "an MP4"),
        (b"\0\0\0\x20ftypM4A " + bytes(99), "an M4A"),
        (b"\x1aE\xdf\xa3" + bytes(99), "WebM"),
        (b"RIFF\x99\0\0\0AVI LIST" + bytes(99), "AVI"),
        (b"OggS" + bytes(24) + b"\x80theora" + bytes(99), "an OGG video"),
        (encrypted_zip(), "an encrypted zip"),
        (random.Random(0).randbytes(999), "perhaps encrypted"),
        (b"\n<!DOCTYPE html><html></html>", "an HTML page"),
        ("Grüße aus Köln".encode(), "a text file"),
        (b"%PDF-1.7", "a PDF"),
        (b"", "empty"),
        (b"RIFF", "RIFF"),
    ],
)
def test_not_audio(data: bytes, found: str) -> None:
    refused(data, found)


def test_unexpected_coding() -> None:
    refused(encode(tone(), "WAV", "IMA_ADPCM"), "IMA_ADPCM")


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n/etc/passwd\n", "[playlist]\nFile1=a.wav", "http://a.example/b.mp3"]
)
def test_playlists(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.wav").write_text(text)
    refused(tmp_path / "list.wav", "playlist")
    refused(text.encode(), "playlist")


@pytest.mark.parametrize("url", ["http://a.example/b.wav", "file:///b.wav", "data:audio/wav,x"])
def test_urls(url: str) -> None:
    refused(url, "is a URL")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    refused(tmp_path / "none.wav", "none.wav does not exist")
    refused(tmp_path, "is a folder")
    refused("a\0b.wav", "cannot be read")
    refused("a" * 5000, "cannot be read")
    os.mkfifo(tmp_path / "pipe.wav")
    refused(tmp_path / "pipe.wav", "a device or a pipe")


def test_file_size_cap(tmp_path: Path) -> None:
    with (tmp_path / "large.wav").open("wb") as file:
        file.truncate(audio_files.MAX_FILE_BYTES + 1)
    refused(tmp_path / "large.wav", "larger than 64 MiB")


def test_wav_of_countless_chunks() -> None:
    data = encode(tone())
    refused(data[:12] + b"junk\0\0\0\0" * 5000 + data[12:], "more than 1000 WAV chunks")
