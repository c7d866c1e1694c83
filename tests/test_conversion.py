"""Voice conversion: where a voice lies, what the maps do to statistics, and whom they belong to."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import converting, tiny_config, tiny_tokenizers, write_tiny_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from mars5 import InferenceConfig, Mars5TTS, Voice
from mars5.checkpoint import write_checkpoint
from mars5.codec import MelCodec
from mars5.config import SAMPLE_RATE
from mars5.conversion import Conversion, Converter, OwnVoice
from mars5.conversion import timbre as timbres
from mars5.conversion.found import KEPT, Found
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
from mars5.engine import Coarse, Task
from mars5.errors import CheckpointError, ConfigError
from mars5.fourier import mel_corners
from mars5.streaming import utterance
from mars5.vocoder import Vocoder, VocoderDims

TEXT, OTHER = "Good evening to all of you.", "The shop is closed on Mondays."


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


def test_converted_speech_is_heard_as_it_is_not_as_its_codes(
    nano: Mars5TTS, bright: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vocoder is given the sound itself, of which the codes are the nearest."""
    given: list[Tensor] = []
    wave = nano.vocoder.wave
    monkeypatch.setattr(nano.vocoder, "wave", lambda x: (given.append(x), wave(x))[1])
    speech = nano.generate(TEXT, bright, cfg=settings(nano, 1.0, trim_db=200), seed=1)
    converter = nano.engine.converter
    assert converter is not None
    assert torch.equal(converter.codes(given[-1].mT)[0], speech.codes)
    assert_close(wave(given[-1])[0], speech.audio)
    off = (nano.vocoder.features(speech.codes[None]) - given[-1]).square().mean()
    assert 1e-3 * given[-1].var() < off < 0.3 * given[-1].var()


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


@pytest.fixture(scope="module")
def bright(nano: Mars5TTS) -> Voice:
    """The default voice with its treble raised."""
    assert nano.default_voice is not None
    wave = nano.vocode(nano.default_voice.codes)[0].numpy()
    raised = wave + 1.5 * np.diff(wave, prepend=0.0)
    return nano.voice((raised.astype(np.float32), 24_000), nano.default_voice.transcript)


def settings(nano: Mars5TTS, timbre: float, **others: object) -> InferenceConfig:
    return replace(nano.default_config, voice_conversion=timbre, **others)


def treble(nano: Mars5TTS, codes: Tensor) -> float:
    """How much louder the upper half of the channels is than the lower, in nats."""
    mel = nano.vocoder.features(codes[None])[0]
    lower, upper = mel.mean(1).chunk(2)
    return float(upper.mean() - lower.mean())


@pytest.mark.parametrize("deep", [False, True])
def test_speech_takes_the_timbre_of_the_reference(
    nano: Mars5TTS, bright: Voice, deep: bool
) -> None:
    without, half, whole = (
        nano.generate(TEXT, bright, cfg=settings(nano, strength, deep_clone=deep), seed=1)
        for strength in (0.0, 0.5, 1.0)
    )
    assert torch.equal(without.ar_codes, whole.ar_codes)
    wanted = treble(nano, bright.codes)
    off = [abs(treble(nano, speech.codes) - wanted) for speech in (without, half, whole)]
    assert off[2] < off[1] < off[0]


def test_the_timbre_is_that_of_the_whole_in_batches_and_streams(
    nano: Mars5TTS, bright: Voice
) -> None:
    cfg = settings(nano, 1.0)
    texts = [TEXT, OTHER]
    alone = [nano.generate(text, bright, cfg=cfg, seed=i) for i, text in enumerate(texts)]
    together = nano.tts_batch(texts, bright, cfg=cfg, seeds=[0, 1])
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.codes, other.codes)
    plain = nano.generate(TEXT, bright, cfg=settings(nano, 0.0), seed=0)
    stream = nano.stream(TEXT, bright, cfg=cfg, seed=0)
    for _ in stream:
        pass
    wanted = treble(nano, bright.codes)
    streamed = abs(treble(nano, stream.speech.codes) - wanted)
    assert streamed < abs(treble(nano, plain.codes) - wanted)


def test_a_conversion_is_found_once_for_a_voice(
    nano: Mars5TTS, bright: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    towards = Converter.towards

    def counted(self: Converter, wanted: Tensor, *others: Any) -> Conversion:
        found.append(len(wanted))
        return towards(self, wanted, *others)

    monkeypatch.setattr(Converter, "towards", counted)
    voice = replace(bright, codes=bright.codes.roll(3, 0))  # not met before
    for text, temperature in ((TEXT, 1.0), (OTHER, 0.9)):  # the AR's settings are no matter
        cfg = settings(nano, 1.0, temperature=temperature)
        nano.generate(text, voice, cfg=cfg, seed=1)
    assert found == [len(voice.codes)]
    nano.generate(TEXT, Voice.blend([(voice, 1.0), (bright, 1.0)]), cfg=settings(nano, 1.0), seed=1)
    nano.generate(TEXT, voice, cfg=settings(nano, 0.0), seed=1)
    assert found == [len(voice.codes)]
    nano.generate(TEXT, voice, cfg=settings(nano, 0.5), seed=1)
    assert found == [len(voice.codes)] * 2


def test_a_style_may_be_continued_by_a_voice_without_transcript(
    nano: Mars5TTS, bright: Voice
) -> None:
    """What a deep clone continues is the style; the timbre is that of the voice all the same."""
    styled = replace(bright, transcript=None).with_style(bright)
    off = []
    for strength in (0.0, 1.0):
        cfg = settings(nano, strength, deep_clone=True)
        codes = nano.generate("Oh no.", styled, cfg=cfg, seed=1).codes
        off.append(abs(treble(nano, codes) - treble(nano, bright.codes)))
    assert off[1] < off[0]


def test_other_checkpoints_convert_nothing(
    tiny: Mars5TTS, nano: Mars5TTS, speechlike: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nano.default_voice is not None
    cfg = InferenceConfig(voice_conversion=0.5, deep_clone=False)
    with pytest.raises(ConfigError, match=r"voice_conversion is 0\.5: it needs a checkpoint"):
        tiny.generate("hello", (speechlike, 24_000), cfg=cfg)
    convention = replace(nano.config.prompt, own_delivery=False)
    monkeypatch.setattr(nano.engine, "config", replace(nano.config, prompt=convention))
    with pytest.raises(ConfigError, match="a delivery of its own"):
        nano.generate("hello", (speechlike, 24_000), cfg=cfg)


def test_without_a_known_own_voice_the_defaults_convert_nothing(
    own: Mars5TTS, speechlike: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own.default_config.voice_conversion == 1.0
    assert own.default_voice is not None
    monkeypatch.setattr(own.engine.voices, "default", None)
    cfg = replace(own.default_config, deep_clone=False)
    assert cfg.voice_conversion == 0.0
    assert len(own.generate("hello you", speechlike, cfg=cfg, seed=1).codes)


def test_files_that_disagree_about_a_transposer_are_refused(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    for folder, config in ((plain, tiny_config()), (other, converting(tiny_config()))):
        folder.mkdir()
        write_tiny_model(folder, config)
    one, two = (folder / "mars5_codec.safetensors" for folder in (plain, other))
    kept = one.read_bytes()
    for path, data in ((one, two.read_bytes()), (two, kept)):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"only one of .* knows of a transposer"):
            Mars5TTS.from_pretrained(path.parent, device="cpu")


@pytest.mark.parametrize("part", ["own", "transposer"])
def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, part: str) -> None:
    path = write_tiny_model(tmp_path, converting(tiny_config())) / "mars5_codec.safetensors"
    kept = {k: v for k, v in load_file(path).items() if not k.startswith(f"{part}.")}
    save_file(kept, path)
    with pytest.raises(CheckpointError, match=r"mars5_codec\.safetensors .*transposer.* version"):
        Mars5TTS.from_pretrained(tmp_path, device="cpu")


def test_a_vocoder_that_cannot_read_converted_sound_is_refused(tmp_path: Path) -> None:
    config = converting(tiny_config())
    other = {**config.codec["vocoder"], "channels": 24, "stack": 1}
    path = write_tiny_model(tmp_path, config) / "mars5_codec.safetensors"
    parts = load_file(path)
    vocoder = Vocoder(VocoderDims(**other), 8192).state_dict()
    parts |= {f"vocoder.{name}": tensor for name, tensor in vocoder.items() if name != "table"}
    save_file(parts, path)
    stated = replace(config, codec={**config.codec, "vocoder": other})
    for kind in ("ar", "nar"):
        path = tmp_path / f"mars5_{kind}.safetensors"
        write_checkpoint(path, load_file(path), *tiny_tokenizers(), stated)
    with pytest.raises(CheckpointError, match=r"24 channels and 1 frames .* codec of 12 and 2"):
        Mars5TTS.from_pretrained(tmp_path, device="cpu")


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_shortest_voices_are_spoken(nano: Mars5TTS, bright: Voice, n: int) -> None:
    voice = replace(bright, codes=bright.codes[:n], transcript=None)
    assert nano.generate("Oh no.", voice, seed=1).audio.isfinite().all()


def test_one_near_frame_has_no_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    found = torch.tensor([100.0] * 6 + [200.0] + [440.0] * 6)
    monkeypatch.setattr("mars5.conversion.pitch.fundamentals", lambda wave: found)
    one = register(torch.zeros(10))
    assert one is not None
    assert (one.median, one.spread) == pytest.approx((200, 0))


def test_what_was_found_is_bounded_and_found_again() -> None:
    calls: list[int] = []

    def find(key: int) -> int:
        calls.append(key)
        return 2 * key

    kept: Found[int] = Found()
    assert [kept.of(key, lambda key=key: find(key)) for key in (1, 1, 2)] == [2, 2, 4]
    assert calls == [1, 2]
    for key in range(3, 3 + KEPT):
        kept.of(key, lambda key=key: find(key))
    calls.clear()
    assert kept.of(1, lambda: find(1)) == 2
    assert copy.deepcopy(kept).of(1, lambda: find(1)) == 2
    assert calls == [1, 1]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Mars5TTS:
    """A random checkpoint that speaks with its own voice and converts it."""
    folder = write_tiny_model(tmp_path_factory.mktemp("own"), converting(tiny_config()))
    return Mars5TTS.from_pretrained(folder, device="cpu")


def test_both_models_speak_with_the_own_voice(own: Mars5TTS, speechlike: np.ndarray) -> None:
    """Who is wanted changes what is said in no way: only the conversion knows."""
    said = [
        own.generate("hello you", ref, transcript, cfg=cfg, seed=1)
        for ref, transcript in ((None, None), (speechlike, None), (speechlike, "he"))
        for cfg in [replace(own.default_config, deep_clone=transcript is not None)]
    ]
    assert torch.equal(said[0].ar_codes, said[1].ar_codes)
    assert torch.equal(said[1].codes, said[2].codes)
    assert not torch.equal(said[0].codes, said[1].codes)


def test_without_conversion_the_nar_is_given_the_voice(
    own: Mars5TTS, speechlike: np.ndarray
) -> None:
    cfg = replace(own.default_config, deep_clone=False)
    plain = replace(cfg, voice_conversion=0.0)
    task = own.engine.task("hello you", speechlike, None, plain, None)
    assert task.narrator is task.voice
    task = own.engine.task("hello you", speechlike, None, cfg, None)
    assert own.default_voice is not None
    assert torch.equal(task.narrator.codes, own.default_voice.codes)


def test_a_stream_converts_as_the_whole(
    own: Mars5TTS, speechlike: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Task, Tensor, Tensor, Tensor]] = []
    of = utterance._Wave.of

    def noted(self: Any, coarse: Coarse, is_last: bool) -> Tensor:
        wave = of(self, coarse, is_last)
        if is_last:
            made.append((self._task, self._refined, self.finished, self._sound))
        return wave

    monkeypatch.setattr(utterance._Wave, "of", noted)
    cfg = replace(own.default_config, generate_max_len_override=200, deep_clone=False, trim_db=200)
    with own.stream("hello you", speechlike, cfg=cfg, seed=1) as stream:
        assert len(list(stream)) > 2
    (task, refined, finished, sound), *_ = made
    assert len(finished) > 100
    whole, codes = own.engine.sound(task, refined)
    assert_close(sound, whole, rtol=0, atol=1e-3)
    assert (codes != finished).float().mean() < 0.001  # elsewhere rounding may tip a choice
    assert torch.equal(stream.speech.codes, finished)
    vocoded, near = own.vocoder.wave(whole)[0], own.vocode(finished)[0]
    audio = stream.speech.audio
    assert len(audio) == len(vocoded)
    same, like_codes = ((audio - wave).abs() < 1e-3 for wave in (vocoded, near))
    assert same.float().mean() > 0.5 > like_codes.float().mean()


def test_the_callers_autocast_changes_no_conversion(own: Mars5TTS, speechlike: np.ndarray) -> None:
    cfg = replace(own.default_config, deep_clone=False, generate_max_len_override=60)
    (one,) = own.tts_batch(["hello you"], speechlike, cfg=cfg, seeds=[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (other,) = own.tts_batch(["hello you"], speechlike, cfg=cfg, seeds=[1])
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.audio, other.audio)


def test_new_words_of_an_edit_are_converted(own: Mars5TTS, speechlike: np.ndarray) -> None:
    voice = own.voice(speechlike)
    edits = [
        own.edit(
            voice, "a b", "a hello", times=[(0.1, 0.6), (0.7, 1.4)], seed=1,
            cfg=replace(own.default_config, voice_conversion=strength),
        )
        for strength in (0.0, 1.0)
    ]  # fmt: skip
    spans = [slice(*edited.spans[0].frames) for edited in edits]
    assert spans[0] == spans[1]
    plain, converted = (edited.codes for edited in edits)
    inside = torch.zeros(len(plain), dtype=torch.bool)
    inside[spans[0]] = True
    assert torch.equal(plain[~inside], converted[~inside])
    heard, near = edits[1].audio, own.vocode(converted)[0]  # the sound, not its nearest codes
    off = (heard - near).abs().unflatten(0, (len(converted), -1)).amax(1)
    assert off[inside].median() > 0.01
    assert off[: spans[1].start - own.vocoder.context].max() < 1e-4
    assert (plain[inside][:, 0] != converted[inside][:, 0]).any()
