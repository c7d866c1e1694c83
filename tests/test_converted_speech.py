"""Converted speech: whose voice it takes, in streams, batches and edits, and what is refused."""

from __future__ import annotations

import copy
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
from mars5.conversion import Conversion, Converter
from mars5.conversion.found import KEPT, Found
from mars5.conversion.pitch import register
from mars5.engine import Coarse, Task
from mars5.errors import CheckpointError, ConfigError
from mars5.streaming import utterance
from mars5.vocoder import Vocoder, VocoderDims

TEXT, OTHER = "Good evening to all of you.", "The shop is closed on Mondays."


@pytest.fixture(scope="module")
def nano() -> Mars5TTS:
    return Mars5TTS.from_pretrained(device="cpu")


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
