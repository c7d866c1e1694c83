"""Speech at another speed: length, pitch, and the same sound however it arrives."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import SHORT, TEXT, assert_same

from mars5 import InferenceConfig, Mars5TTS, Voice
from mars5.audio import load_reference
from mars5.errors import ConfigError
from mars5.tempo import HOP, Tempo, retimed

RATE = 24_000
READER = load_reference(Path(__file__).parent.parent / "examples" / "reader.wav")


@pytest.fixture(scope="module")
def voice(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    return tiny.voice(speechlike)


@given(st.integers(0, 8000), st.floats(0.5, 2.0))
@settings(max_examples=100, deadline=None)
def test_the_length_is_divided_by_the_speed(length: int, speed: float) -> None:
    found = retimed(READER[20_000 : 20_000 + length], speed)
    assert found.shape == (round(length / speed),)
    assert found.isfinite().all()


@given(st.lists(st.integers(0, 9000), max_size=8), st.sampled_from([0.5, 0.8, 1.0, 1.3, 2.0]))
@settings(max_examples=40, deadline=None)
def test_it_does_not_depend_on_the_parts(cuts: list[int], speed: float) -> None:
    wave = READER[20_000:29_000]
    places = [0, *sorted(cuts), len(wave)]
    tempo = Tempo(speed)
    parts = [tempo.feed(wave[a:b]) for a, b in pairwise(places)]
    assert torch.equal(torch.cat([*parts, tempo.finish()]), retimed(wave, speed))


def test_what_is_sure_is_given_at_once() -> None:
    tempo = Tempo(1.25)
    fed = given = 0
    for part in READER.split(1200):
        fed, given = fed + len(part), given + len(tempo.feed(part))
        assert fed / 1.25 - given < 0.06 * RATE


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 2.0])
@pytest.mark.parametrize("hertz", [90.0, 220.0])
def test_a_voice_keeps_its_pitch_its_level_and_its_smoothness(hertz: float, speed: float) -> None:
    time = torch.arange(RATE) / RATE
    harmonics = [(hertz * k, 0.3 / k) for k in range(1, 6)]
    wave = torch.stack([a * torch.sin(2 * torch.pi * f * time) for f, a in harmonics]).sum(0)
    found = retimed(wave, speed)
    inside = found[4 * HOP : -4 * HOP]
    spectrum = torch.fft.rfft(inside * torch.hann_window(len(inside))).abs()
    peak = spectrum.argmax().item() * RATE / len(inside)
    assert peak == pytest.approx(hertz, rel=0.02)
    assert float(inside.std()) == pytest.approx(float(wave.std()), rel=0.1)
    steepest = float(wave.diff().abs().max())
    assert float(found.diff().abs().max()) < 1.5 * steepest  # no clicks, at the ends neither


def test_it_ends_as_the_wave_does() -> None:
    wave = torch.cat([torch.randn(6000) * 0.1, torch.zeros(1)])
    for speed in (0.6, 0.95, 1.7):
        assert retimed(wave, speed)[-1] == 0
        assert torch.allclose(retimed(wave, speed)[-5:], wave[-5:], atol=1e-3)


def test_speed_one_changes_nothing(tiny: Mars5TTS, voice: Voice) -> None:
    assert retimed(READER, 1) is READER
    plain = tiny.generate(TEXT, voice, cfg=SHORT, seed=1)
    assert_same(plain, tiny.generate(TEXT, voice, cfg=SHORT, seed=1, speed=1))


@pytest.mark.parametrize("speed", [0.7, 1.5])
def test_every_way_of_speaking_has_it(
    tiny: Mars5TTS, voice: Voice, tmp_path: Path, speed: float
) -> None:
    plain = tiny.generate(TEXT, voice, cfg=SHORT, seed=1)
    wanted = replace(plain, audio=retimed(plain.audio, speed))
    cfg = replace(SHORT, speed=speed)
    assert_same(tiny.generate(TEXT, voice, cfg=SHORT, seed=1, speed=speed), wanted)
    assert_same(tiny.generate(TEXT, voice, cfg=cfg, seed=1), wanted)
    assert_same(tiny.tts_batch([TEXT], voice, cfg=cfg, seeds=1)[0], wanted)
    assert torch.equal(tiny.tts(TEXT, voice, cfg=SHORT, seed=1, speed=speed)[1], wanted.audio)
    (passage,) = tiny.narrate(TEXT, voice, cfg=SHORT, seed=1, speed=speed)
    assert_same(passage.speech, wanted)
    chapter = tiny.speak_file(TEXT, tmp_path / "a.wav", voice, cfg=SHORT, seed=1, speed=speed)
    assert chapter.seconds == pytest.approx(len(passage.audio) / RATE)


def test_a_stream_has_it_and_keeps_pauses(tiny: Mars5TTS, voice: Voice) -> None:
    text = f"{TEXT} {TEXT}, once more [pause 0.5s] and again"
    whole, fast = (
        tiny.stream(text, voice, cfg=SHORT, seed=1, speed=speed) for speed in (None, 1.25)
    )
    list(whole), list(fast)
    for plain, quick in zip(whole.speech.pieces, fast.speech.pieces, strict=True):
        spoken = whole.speech.audio[plain.start : plain.stop]
        assert torch.equal(fast.speech.audio[quick.start : quick.stop], retimed(spoken, 1.25))
    first, second = fast.speech.pieces
    assert second.start - first.stop == RATE // 2


@pytest.mark.parametrize("speed", [0, 0.4, 2.1, float("nan"), "fast", True])
def test_a_speed_that_is_none(tiny: Mars5TTS, voice: Voice, speed: float) -> None:
    with pytest.raises(ConfigError, match=r"speed must be a number from 0\.5 to 2\.0"):
        tiny.generate(TEXT, voice, speed=speed)


def test_an_edit_keeps_the_pace(tiny: Mars5TTS, voice: Voice) -> None:
    with pytest.raises(ConfigError, match=r"speed is 1\.2, but an edit keeps the pace"):
        tiny.edit(voice, "a b", "a c", InferenceConfig(speed=1.2), times=[(0, 1), (1, 2)])
