"""Voice conversion: where a voice lies, what the maps do to statistics, and whom they belong to."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mars5 import Mars5TTS
from mars5.codec import MelCodec
from mars5.config import SAMPLE_RATE
from mars5.conversion import Conversion, Converter, OwnVoice
from mars5.conversion import timbre as timbres
from mars5.conversion.neighbours import with_neighbours
from mars5.conversion.pitch import Register, fundamentals, register
from mars5.conversion.timbre import Timbre
from mars5.conversion.transposer import (
    PITCHES,
    Shift,
    Transposer,
    TransposerDims,
    build_transposer,
    stretched,
)
from mars5.errors import CheckpointError
from mars5.fourier import mel_corners


def buzz(frequencies: Tensor, seed: int = 0) -> Tensor:
    """A wave (T,) whose fundamental has these frequencies (T,) in Hz, with formants and noise."""
    phase = (2 * math.pi * frequencies.double() / SAMPLE_RATE).cumsum(0)
    partials = [(k * phase).sin() / k for k in range(1, 20)]
    noise = torch.randn(len(phase), generator=torch.Generator().manual_seed(seed))
    return (0.1 * torch.stack(partials).sum(0) + 0.005 * noise).float()


@pytest.mark.parametrize("pitch", [75.0, 101.0, 173.0, 260.0, 400.0])
def test_the_register_of_a_steady_tone_is_its_pitch(pitch: float) -> None:
    found = register(buzz(torch.full((SAMPLE_RATE,), pitch)))
    assert found is not None
    assert found.median == pytest.approx(pitch, rel=0.01)
    assert found.spread < 0.01


def test_the_spread_is_that_of_the_melody() -> None:
    melody = 0.2 * torch.sin(torch.linspace(0, 40, 4 * SAMPLE_RATE))
    found = register(buzz(180 * melody.exp()))
    assert found is not None
    assert found.median == pytest.approx(180, rel=0.02)
    assert found.spread == pytest.approx(float(melody.std()), rel=0.1)


def test_noise_silence_and_little_have_no_register() -> None:
    noise = torch.randn(SAMPLE_RATE, generator=torch.Generator().manual_seed(1))
    assert register(0.1 * noise) is None
    assert register(torch.zeros(SAMPLE_RATE)) is None
    assert register(torch.zeros(10)) is None
    assert len(fundamentals(torch.zeros(0))) == 0


def test_loudness_and_pauses_do_not_move_the_register() -> None:
    tone = buzz(torch.full((SAMPLE_RATE,), 150.0))
    paused = torch.cat([torch.zeros(SAMPLE_RATE), 0.01 * tone, torch.zeros(SAMPLE_RATE)])
    for wave in (tone, 5 * tone, paused):
        found = register(wave)
        assert found is not None
        assert found.median == pytest.approx(150, rel=0.01)


def test_a_shift_leads_from_one_register_to_the_other() -> None:
    own, wanted = Register(100, 0.1), Register(180, 0.15)
    whole, half = Shift.between(own, wanted, 1.0), Shift.between(own, wanted, 0.5)
    assert (whole.pitch, whole.spread) == pytest.approx((math.log(1.8), math.log(1.5)))
    assert (half.pitch, half.spread) == pytest.approx((whole.pitch / 2, whole.spread / 2))
    assert Shift.between(own, own, 1.0) == Shift()
    assert Shift.between(own, None, 1.0) == Shift()


def test_a_shift_stays_within_what_the_network_knows() -> None:
    far = Shift.between(Register(100, 0.0), Register(900, 3.0), 1.0)
    assert far.pitch == pytest.approx(math.log(PITCHES[1]))
    assert math.isfinite(far.spread)
    low = Shift.between(Register(100, 0.1), Register(20, 0.0), 1.0)
    assert low.pitch == pytest.approx(math.log(PITCHES[0]))
    assert 0.85 < low.formants < 1 < far.formants < 1.3


def test_the_highest_voices_formants_are_stretched_further() -> None:
    high, higher = (Shift(math.log(factor)) for factor in (1.9, 2.6))
    assert high.stretch == 1.0
    assert high.formants == pytest.approx(1.9 ** (1 / 3))
    assert higher.formants * higher.stretch == pytest.approx(2.6 ** (1 / 3))
    assert Shift(math.log(0.7)).stretch == 1.0


def test_stretched_sound_has_its_peaks_higher() -> None:
    centres = mel_corners(80, SAMPLE_RATE)[1:-1]
    sound = torch.stack([-((centres / hertz).log() ** 2) for hertz in (400.0, 1500.0, 4000.0)])
    found = stretched(sound, 1.1, centres)
    wanted = torch.stack([-((centres / 1.1 / hertz).log() ** 2) for hertz in (400, 1500, 4000)])
    assert_close(found[:, 5:], wanted[:, 5:], rtol=0.01, atol=0.01)
    assert_close(stretched(sound, 1.0, centres), sound)


def frames(seed: int, n: int = 4000, channels: int = 6) -> Tensor:
    """Correlated frames of another mean and covariance for each seed."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=generator)
    return torch.randn(n, channels, generator=generator) @ mix + 3 * seed


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.mean(0), torch.cov(values.T, correction=0)


@pytest.fixture
def unweighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All frames are speech, and correlations are believed."""
    monkeypatch.setattr(timbres, "SPOKEN", 1.0)
    monkeypatch.setattr(timbres, "SHRINKAGE", 0.0)
    monkeypatch.setattr(timbres, "SOFTNESS", 1e-6)


@pytest.mark.usefixtures("unweighted")
def test_mapped_frames_have_the_other_mean_and_covariance() -> None:
    made, wanted = frames(1), frames(2)
    timbre = Timbre.between(made, wanted, 1.0)
    assert_close(timbre.turn, timbre.turn.mT, rtol=0, atol=1e-4)
    timbre = replace(timbre, quiet=torch.tensor(-1e9))
    mapped = timbre(made)
    for found, expected in zip(moments(mapped), moments(wanted), strict=True):
        assert_close(found, expected, rtol=1e-3, atol=1e-2)
    half = replace(Timbre.between(made, wanted, 0.5), quiet=timbre.quiet)
    assert_close(half(made), made.lerp(mapped, 0.5))
    none = replace(Timbre.between(made, wanted, 0.0), quiet=timbre.quiet)
    assert_close(none(made), made)


def test_frames_are_mapped_alone() -> None:
    timbre = Timbre.between(frames(1), frames(2), 1.0)
    sound = frames(3, n=12)
    assert_close(timbre(sound.unflatten(0, (3, 4))).flatten(0, 1), timbre(sound))
    assert_close(timbre(sound[5:6]), timbre(sound)[5:6])


def test_pauses_stay_as_they_are() -> None:
    made = frames(1)
    timbre = Timbre.between(made, frames(2), 1.0)
    pause = torch.full((1, 6), float(timbre.quiet) - 10)
    assert_close(timbre(pause), pause, rtol=1e-6, atol=1e-5)
    loud = made[made.mean(1).argmax()][None]
    assert (timbre(loud) - loud).abs().max() > 1


def test_a_silent_reference_leaves_finite_sound() -> None:
    timbre = Timbre.between(torch.zeros(50, 6), frames(1), 1.0)
    assert timbre.turn.isfinite().all()
    silent = Timbre.between(frames(1), torch.zeros(50, 6), 1.0)
    assert silent(frames(1)).isfinite().all()


@pytest.fixture(scope="module")
def nano() -> Mars5TTS:
    return Mars5TTS.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def codec(nano: Mars5TTS) -> MelCodec:
    assert isinstance(nano.engine.codec, MelCodec)
    return nano.engine.codec


@pytest.fixture(scope="module")
def transposer() -> Transposer:
    torch.manual_seed(3)
    return Transposer(TransposerDims(dim=16, ff_dim=24, n_layers=2)).eval()


def some_codes(seed: int, n: int = 60) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1024, (1, n, 8), generator=generator)


OWN = OwnVoice(some_codes(9)[0], Register(100.0, 0.1))


def test_the_sound_of_codes_is_what_the_vocoder_reads(nano: Mars5TTS, codec: MelCodec) -> None:
    codes = some_codes(1)
    assert_close(codec.sound(codes).mT, nano.vocoder.features(codes), rtol=1e-4, atol=1e-4)


def conversion_to(seed: int, shift: Shift, share: float = 0.3) -> Conversion:
    timbre = Timbre.between(frames(1, channels=80), frames(2, channels=80), 1.0)
    return Conversion(shift, timbre, frames(seed, n=50, channels=80), share)


def test_near_frames_of_the_recording_are_mixed_in() -> None:
    recording = frames(1, n=30)
    assert torch.equal(with_neighbours(recording[None], recording, 0.0)[0], recording)
    whole = with_neighbours(recording[None], recording, 1.0)[0]
    far = (recording[:, None] - recording).norm(dim=2).mean()
    assert (whole - recording).norm(dim=1).mean() < 0.1 * far  # each is nearest to itself
    half = with_neighbours(recording[None], recording, 0.5)[0]
    assert_close(half, recording.lerp(whole, 0.5))
    few = with_neighbours(frames(2, n=3)[None], recording[:2], 1.0)
    low, high = recording[:2].amin(0), recording[:2].amax(0)
    assert ((few >= low - 1e-4) & (few <= high + 1e-4)).all()


def test_a_conversion_depends_on_frames_within_its_reach(
    codec: MelCodec, transposer: Transposer
) -> None:
    converter = Converter(codec, transposer, OWN)
    assert converter.reach == -(-(3 * 3 + 1) // codec.dims.stack)
    conversion = conversion_to(3, Shift(0.5, 0.1))
    codes = some_codes(2)
    whole, reach, stack = converter(codes, conversion), converter.reach, codec.dims.stack
    part = converter(codes[:, 20 - reach : 30 + reach], conversion)
    assert_close(part[:, reach * stack : (reach + 10) * stack], whole[:, 20 * stack : 30 * stack])
    other = codes.clone()
    other[:, 40] = some_codes(3)[:, 40]
    off = (converter(other, conversion) - whole).abs().amax(2)[0]
    changed = (off > 1e-4).nonzero()[:, 0] // stack
    assert 40 - reach <= changed.min() <= changed.max() <= 40 + reach


def test_the_codes_of_a_converted_sound_are_the_nearest(
    codec: MelCodec, transposer: Transposer
) -> None:
    codes = some_codes(5)
    again = Converter(codec, transposer, OWN).codes(codec.sound(codes))
    off = (codec.sound(again) - codec.sound(codes)).square().mean()
    assert off < 0.05 * codec.sound(codes).var()


def test_the_same_register_needs_no_transposer(codec: MelCodec, transposer: Transposer) -> None:
    conversion, codes = conversion_to(3, Shift(), share=0.0), some_codes(4)
    found = Converter(codec, transposer, OWN)(codes, conversion)
    assert torch.equal(found, conversion.timbre(codec.sound(codes)))


@torch.no_grad()
def test_the_network_is_asked_for_less_where_its_result_is_stretched(
    codec: MelCodec, transposer: Transposer
) -> None:
    conversion, codes = conversion_to(3, Shift(math.log(2.6), 0.1), share=0.0), some_codes(4)
    found = Converter(codec, transposer, OWN)(codes, conversion)
    factor = 2.6 ** (1 / 3) / 1.25
    moved = transposer(codec.sound(codes), torch.tensor([[math.log(2.6 / factor), 0.1]]))
    wanted = stretched(moved, factor, mel_corners(80, SAMPLE_RATE)[1:-1])
    assert (wanted - moved).abs().max() > 0.01
    assert_close(found, conversion.timbre(wanted), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_conversion_starts_from_the_own_voice(codec: MelCodec, transposer: Transposer) -> None:
    wanted, converter = some_codes(7)[0], Converter(codec, transposer, OWN)
    found = converter.towards(wanted, Register(180.0, 0.15), 0.5)
    assert found.shift == Shift.between(OWN.register, Register(180.0, 0.15), 0.5)
    there = codec.sound(wanted[None])[0]
    assert torch.equal(found.recording, there)
    shift = torch.tensor([[found.shift.pitch, found.shift.spread]])
    here = transposer(codec.sound(OWN.speech[None]), shift)[0]
    assert_close(found.timbre.made, Timbre.between(here, there, 0.5).made)
    plain = converter.towards(wanted, None, 1.0)
    assert plain.shift == Shift()
    expected = Timbre.between(codec.sound(OWN.speech[None])[0], there, 1.0)
    assert_close(plain.timbre.turn, expected.turn)
    assert plain.share == 2 * found.share


def test_what_is_known_of_the_own_voice_is_kept_with_the_weights() -> None:
    kept = OwnVoice.from_weights(OWN.weights(), Path("codec"))
    assert torch.equal(kept.speech, OWN.speech)
    assert (kept.register.median, kept.register.spread) == pytest.approx((100.0, 0.1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"speech": torch.zeros(())[None]},
        {"speech": torch.zeros(3, 7)},
        {"speech": torch.zeros(20_001, 8)},
        {"speech": torch.zeros(0, 8)},
        {"speech": torch.full((3, 8), 1024.0)},
        {"speech": torch.full((3, 8), 0.5)},
        {"speech": torch.full((3, 8), -1.0)},
        {"register": torch.zeros(2)},
        {"register": torch.tensor([100.0, -0.1])},
        {"register": torch.tensor([100.0, float("nan")])},
        {"register": torch.ones(3)},
        {"register": torch.tensor([1e4, 0.1])},
        {"pitch": torch.ones(1)},
    ],
)
def test_what_is_no_own_voice_is_refused(wrong: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"c\.safetensors(: own\.| has a)"):
        OwnVoice.from_weights(OWN.weights() | wrong, Path("c.safetensors"))


@pytest.mark.parametrize(
    "wrong",
    [{"n_layers": 3}, {"n_mels": 81}, {"width": 3}, {"dim": 0}, {"dim": 8192, "ff_dim": 8192}],
)
def test_a_transposer_that_does_not_fit_its_config_is_refused(
    transposer: Transposer, wrong: dict[str, int]
) -> None:
    stated = {"n_mels": 80, "dim": 16, "ff_dim": 24, "n_layers": 2}
    assert build_transposer(stated, transposer.state_dict(), 80).reach == transposer.reach
    with pytest.raises(CheckpointError):
        build_transposer(stated | wrong, transposer.state_dict(), 80)
    with pytest.raises(CheckpointError, match="80 mel bands, the codec has 12"):
        build_transposer(stated, transposer.state_dict(), 12)
