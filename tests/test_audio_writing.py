"""Trimming and writing audio."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from audio_made import SR, tone

from mars5.audio import (
    load_reference,
    to_wav_bytes,
    trim_interval,
    trim_silence,
    write_audio,
)
from mars5.audio_writer import audio_file
from mars5.errors import AudioInputError, ConfigError


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


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="it is a device or a pipe, not a file"):
        write_audio(pipe, torch.zeros(100))
    with pytest.raises(ConfigError, match="it is a device or a pipe, not a file"), audio_file(pipe):
        pass
    assert pipe.is_fifo()


def test_a_link_stays_and_what_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, file = tmp_path / "link.wav", tmp_path / "there" / "a.wav"
    link.symlink_to(file)
    for _ in ("new", "replaced"):
        write_audio(link, torch.zeros(100))
        assert link.is_symlink()
        assert not file.is_symlink()
        assert file.is_file()
    assert [path.name for path in file.parent.iterdir()] == ["a.wav"]


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
