"""Audio at the border: bad references by row of the fault list, trimming, round trips, fuzzing."""

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
import soundfile as sf
import torch

from mars5 import audio_files
from mars5.audio import (
    load_reference,
    to_wav_bytes,
    trim_interval,
    trim_silence,
    write_audio,
)
from mars5.errors import AudioInputError, ConfigError

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


# reading


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


# faults, by row


@pytest.mark.parametrize(
    "audio", [torch.zeros(0), np.zeros((2, 0)), np.zeros((0, 2)), encode(np.zeros(0))]
)
def test_row_27_zero_samples(audio: Any) -> None:
    refused(audio, "no samples")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["array", "stereo", "file"])
def test_row_28_not_finite(value: float, kind: str) -> None:
    wave = tone()
    wave[77] = value
    if kind == "stereo":
        wave = np.stack([wave, -wave])  # infinities cancel to NaN
    refused(encode(wave, "WAV", "FLOAT") if kind == "file" else wave, "sample 77")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_row_28_absurd_magnitude(dtype: type) -> None:
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
def test_row_29_silence(audio: Any) -> None:
    refused(audio, "silent")


def test_row_30_too_short() -> None:
    refused(tone(0.1), r"0\.100 s.*at least 0\.2")
    refused((tone(0.19, 48_000), 48_000), "at least")
    refused(encode(tone(0.1)), "at least")
    assert load_reference(tone(0.2)).shape == (4800,)


def test_row_31_policy_comes_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_work(*_: Any, **__: Any) -> None:
        pytest.fail("worked on audio that policy refuses")

    monkeypatch.setattr(audio_files, "_blocks", no_work)
    monkeypatch.setattr("mars5.audio._to_numpy", no_work)
    monkeypatch.setattr("mars5.audio.soxr.resample", no_work)
    refused(torch.zeros(1).expand(600 * SR), "600.0 s or more; the limit is 60 s")
    refused((np.broadcast_to(np.float32(0), 600 * 8000), 8000), "600.0 s")
    refused(encode(np.zeros(61 * 8000, np.int16), rate=8000), "61.0 s")
    refused(tone(3), "limit is 2.5 s", max_seconds=2.5)


def test_row_32_clipping_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mars5"):
        load_reference(tone(level=0.9))
        assert not caplog.records
        load_reference(np.clip(tone(level=3), -1, 1))
    assert "clipped" in caplog.text


def test_row_33_channels() -> None:
    eight = np.stack([tone()] * 8, 1)
    assert load_reference(eight).numpy() == pytest.approx(tone(), abs=1e-6)
    assert load_reference(encode(eight)).numpy() == pytest.approx(tone(), abs=1e-4)
    assert load_reference(np.stack([tone()] * 16)).shape == (SR,)
    refused(np.stack([tone()] * 17), "17 channels; the limit is 16")
    refused(encode(np.stack([tone()] * 17, 1)), "17 channels; the limit is 16")


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_row_34_integer_arrays(make: Any) -> None:
    wave = tone()
    for dtype, zero, scale in [(np.int16, 0, 2**15), (np.int32, 0, 2**31), (np.uint8, 128, 128)]:
        loaded = load_reference(make(np.round(wave.astype(float) * scale + zero).astype(dtype)))
        assert loaded.numpy() == pytest.approx(wave, abs=0.6 / min(scale, 2**24))
    assert load_reference(make(wave.astype(np.float16))).numpy() == pytest.approx(wave, abs=1e-3)
    refused(make(np.ones(SR, np.int64)), "int64")
    refused(make(np.ones(SR, bool)), "bool")
    refused(make(np.ones(SR, np.complex64)), "complex64")


def test_row_34_bfloat16() -> None:
    wave = torch.from_numpy(tone()).bfloat16()
    assert torch.equal(load_reference(wave), wave.float())


def test_row_35_rates(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mars5"):
        load_reference((tone(1, 16_000), 16_000))
        assert not caplog.records
        assert load_reference((tone(1, 8000), 8000)).shape == (SR,)
    assert "8000 Hz" in caplog.text
    for rate in (0, -SR, 3999, 192_001, 2**40):
        refused((tone(), rate), "limits are 4000 and 192000 Hz")
    refused(encode(tone(1, 2000), rate=2000), "2000 Hz")
    assert load_reference((tone(1, 192_000), 192_000)).shape == (SR,)


def test_row_36_shapes() -> None:
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
def test_row_36_malformed_pairs(pair: Any) -> None:
    refused(pair, "sample rate as a whole number")


@pytest.mark.parametrize("audio", [None, 3, [0.1] * SR, {}])
def test_row_36_other_types(audio: Any) -> None:
    refused(audio, "must be a tensor")


@pytest.mark.parametrize("share", [0.95, 0.5, 0.2])
@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_row_37_truncated(kind: str, subtype: str, share: float) -> None:
    data = encode(tone(4), kind, subtype)
    refused(data[: int(share * len(data))], "cut short")


def test_row_37_ogg_without_its_last_page() -> None:
    data = encode(tone(4), "OGG", "VORBIS")
    refused(data[: data.rfind(b"OggS")], "not marked as the end")


def test_row_37_flac_claims_more_than_it_holds() -> None:
    refused(flac_claiming(3 * SR, tone(2)), "claims 72000 frames, 48000 could be decoded")


@pytest.mark.parametrize("claim", [None, 0, 2 * SR], ids=["true", "unstated", "forged"])
def test_row_38_compression_bomb(claim: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_row_39_forged_mp3_counts(count: int) -> None:
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
def test_row_40_not_audio(data: bytes, found: str) -> None:
    refused(data, found)


def test_row_40_unexpected_coding() -> None:
    refused(encode(tone(), "WAV", "IMA_ADPCM"), "IMA_ADPCM")


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n/etc/passwd\n", "[playlist]\nFile1=a.wav", "http://a.example/b.mp3"]
)
def test_row_41_playlists(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.wav").write_text(text)
    refused(tmp_path / "list.wav", "playlist")
    refused(text.encode(), "playlist")


@pytest.mark.parametrize("url", ["http://a.example/b.wav", "file:///b.wav", "data:audio/wav,x"])
def test_row_41_urls(url: str) -> None:
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


# trimming


@pytest.mark.parametrize("n", [0, 1, 500, 1024])
def test_short_signals_are_kept_whole(n: int) -> None:
    assert trim_interval(torch.zeros(n), 27) == (0, n)
    assert trim_silence(torch.rand(2, n), 27).shape == (2, n)


def test_one_loud_frame() -> None:
    wave = torch.zeros(8192)
    wave[4096] = 1
    ramp = wave + torch.linspace(0, 1e-3, 8192)
    assert trim_interval(ramp, 1e-6)[1] - trim_interval(ramp, 1e-6)[0] == 512


def test_trim_keeps_the_sound_of_all_channels() -> None:
    wave = torch.zeros(2, SR)
    wave[1, 10_000:14_000] = torch.from_numpy(tone())[:4000]
    start, end = trim_interval(wave, 27)
    assert 10_000 - 2048 < start <= 10_000
    assert 14_000 - 512 <= end < 14_000 + 2048
    assert torch.equal(trim_silence(wave, 27), wave[:, start:end])


def test_trim_of_nothing_and_of_nan() -> None:
    assert trim_interval(torch.zeros(5000), 27) == (0, 5000)
    assert trim_interval(torch.full((5000,), torch.nan), 27) == (0, 0)


@pytest.mark.parametrize("shape", [(), (0, 5000), (1, 1, 5000)])
def test_trim_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioInputError, match="channels, n"):
        trim_interval(torch.zeros(shape), 27)


# writing


@pytest.mark.parametrize("suffix", [".wav", ".FLAC", ".ogg", ".mp3"])
def test_written_audio_reads_back(tmp_path: Path, suffix: str) -> None:
    wave = torch.from_numpy(tone(2))
    write_audio(tmp_path / f"a{suffix}", wave[None])
    back = load_reference(tmp_path / f"a{suffix}")
    assert back.shape == wave.shape
    if suffix in (".wav", ".FLAC"):
        assert (back - wave).abs().max() <= 0.5 / 2**15
    assert np.corrcoef(back, wave)[0, 1] > 0.99
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_sixteen_bit_samples_survive_unchanged() -> None:
    pcm = np.arange(-(2**15), 2**15, dtype=np.int16)
    back, rate = sf.read(
        io.BytesIO(to_wav_bytes(torch.from_numpy(pcm) / 2**15, 8000)), dtype="int16"
    )
    assert rate == 8000
    assert np.array_equal(back, pcm)


def test_loud_samples_are_clipped_not_wrapped() -> None:
    back, _ = sf.read(io.BytesIO(to_wav_bytes(torch.tensor([1.0, 2.0, -1.5, 1e9]))), dtype="int16")
    assert back.tolist() == [32767, 32767, -32768, 32767]


def test_long_vorbis_is_written(tmp_path: Path) -> None:
    write_audio(tmp_path / "long.ogg", torch.from_numpy(np.tile(tone(1, 8000), 180)), 8000)
    assert sf.info(tmp_path / "long.ogg").frames == 180 * 8000


@pytest.mark.parametrize("name", ["a.m4a", "a", "a.wav.txt"])
def test_unknown_suffix_lists_the_formats(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"\.wav, \.flac, \.ogg"):
        write_audio(tmp_path / name, torch.zeros(100))
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.wav").mkdir()
    for path in ("none/a.wav", "file/a.wav", "folder.wav", "a\0.wav"):
        with pytest.raises(ConfigError, match="cannot write"):
            write_audio(tmp_path / path, torch.zeros(100))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.wav"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    write_audio(tmp_path / "a.wav", torch.zeros(100))
    before = (tmp_path / "a.wav").read_bytes()
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(ConfigError, match="No space left"):
        write_audio(tmp_path / "a.wav", torch.ones(200))
    assert (tmp_path / "a.wav").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("rate", [0, 3999, 192_001, 24e3, True])
def test_rates_to_write(rate: Any) -> None:
    with pytest.raises(ConfigError, match="sample_rate"):
        to_wav_bytes(torch.zeros(100), rate)


def test_rate_the_format_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot hold audio at sample_rate = 96000"):
        write_audio(tmp_path / "a.mp3", torch.zeros(100), 96_000)


@pytest.mark.parametrize(
    "audio",
    [
        torch.zeros(0),
        torch.zeros(2, 100),
        torch.zeros(1, 1, 100),
        torch.zeros(()),
        torch.tensor([0.0, torch.nan]),
        torch.tensor([0.0, torch.inf]),
        torch.zeros(100, dtype=torch.int16),
        np.zeros(100),
    ],
)
def test_audio_that_cannot_be_written(audio: Any) -> None:
    with pytest.raises(AudioInputError, match="audio to write"):
        to_wav_bytes(audio)


# fuzzing


def mutated(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        reach = min(len(out), 200) if chance.random() < 0.6 else len(out)
        at = chance.randrange(max(1, reach))
        match chance.randrange(5):
            case 0:
                out[at : at + 1] = bytes([chance.choice((0, 127, 255, chance.randrange(256)))])
            case 1:
                number = chance.choice((0, 1, 2**31 - 1, 2**32 - 1, chance.randrange(2**32)))
                out[at : at + 4] = struct.pack(chance.choice("<>") + "I", number)
            case 2:
                del out[at : at + chance.randrange(1, 200)]
            case 3:
                out[at:at] = out[at : at + chance.randrange(1, 200)]
            case 4 if chance.random() < 0.3:
                del out[at:]
    return bytes(out)


@pytest.mark.parametrize(("kind", "subtype"), [*KINDS, ("WAVEX", "FLOAT"), ("WAV", "ULAW")])
def test_mutated_files_are_refused_or_read(kind: str, subtype: str) -> None:
    stereo = np.stack([tone(0.5), tone(0.5)], 1)
    originals = [encode(tone(0.5), kind, subtype), encode(stereo, kind, subtype)]
    outcomes = {True: 0, False: 0}
    for seed in range(200):
        chance = random.Random(f"{kind} {subtype} {seed}")
        try:
            wave = load_reference(mutated(chance.choice(originals), chance))
        except AudioInputError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert wave.ndim == 1
            assert wave.dtype == torch.float32
            assert wave.isfinite().all()
            assert 0.2 * SR <= len(wave) <= 60 * SR + 1
    assert all(outcomes.values())  # the mutations are neither all harmless nor all fatal
