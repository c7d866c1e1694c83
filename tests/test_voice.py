"""Voices: files that come back equal, files that are refused, and speaker vectors never stale."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_tokenizers, write_tiny_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from mars5 import InferenceConfig, Mars5TTS, Voice
from mars5.audio import load_reference, write_audio
from mars5.checkpoint import read_checkpoint, write_checkpoint
from mars5.codec import MelCodec
from mars5.errors import AudioInputError, TextError, VoiceError
from mars5.voice_file import FORMAT, MAX_FILE_BYTES, MAX_FRAMES

SETTINGS = InferenceConfig(timesteps=2, generate_max_len_override=90, freq_penalty=0)


@pytest.fixture(scope="module")
def voice(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    return tiny.voice(speechlike, "what was said", provenance={"source": "a test", "of": "Grüße"})


def assert_equal(one: Voice, other: Voice) -> None:
    assert vars(one).keys() == vars(other).keys()
    for name, value in vars(one).items():
        found = getattr(other, name)
        if isinstance(value, Tensor):
            assert found.dtype == value.dtype, name
            assert torch.equal(found, value), name
        else:
            assert found == value, name


# ---------------------------------------------------------------- what is made


def test_what_a_voice_holds(tiny: Mars5TTS, voice: Voice) -> None:
    assert voice.codes.shape == (57, 8)
    assert voice.codes.dtype == torch.int64
    assert voice.ar_speaker.shape == (tiny.config.ar.dim,)
    assert voice.nar_speaker.shape == (tiny.config.nar.dim,)
    assert voice.ar_speaker.dtype == voice.nar_speaker.dtype == torch.float32
    assert voice.codec.startswith("mel-rvq-")
    assert voice.frame_rate == pytest.approx(37.5)
    assert voice.provenance == {"source": "a test", "of": "Grüße"}


def test_round_trip(voice: Voice, tmp_path: Path) -> None:
    for other in (
        voice,
        replace(voice, transcript=None),
        replace(voice, transcript="Zwölf Boxkämpfer\njagen 字"),
        replace(voice, provenance={}, frame_rate=None),
        replace(voice, codes=torch.tensor([[0, 1023] * 4])),
    ):
        other.save(tmp_path / "a voice.safetensors")
        assert_equal(Voice.load(str(tmp_path / "a voice.safetensors")), other)


def test_a_saved_voice_speaks_the_same_without_the_codec(
    tiny: Mars5TTS, voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: MelCodec, wave: Tensor) -> Tensor:
        raise AssertionError("the codec was used")

    wanted = tiny.generate("hello", voice, cfg=SETTINGS, seed=1)
    voice.save(tmp_path / "v")
    monkeypatch.setattr(MelCodec, "encode", refuse)
    loaded = Voice.load(tmp_path / "v")
    assert torch.equal(tiny.generate("hello", loaded, cfg=SETTINGS, seed=1).codes, wanted.codes)
    with pytest.raises(AssertionError, match="the codec was used"):
        tiny.voice(torch.ones(24_000).cumsum(0).sin())


def test_a_voice_of_these_models_is_used_as_it_is(tiny: Mars5TTS, voice: Voice) -> None:
    """Stored vectors are not computed again: here they are changed, and that is heard."""
    changed = replace(voice, ar_speaker=-voice.ar_speaker)
    one, other = (tiny.generate("hello", v, cfg=SETTINGS, seed=1) for v in (voice, changed))
    assert not torch.equal(one.ar_codes, other.ar_codes)


# ---------------------------------------------------------------- other models


@pytest.mark.parametrize("part", ["everything", "ar.ref_chunked_emb", "nar.spk_encoder.layers"])
def test_a_voice_of_another_checkpoint_is_computed_anew(
    tiny: Mars5TTS, voice: Voice, tiny_folder: Path, tmp_path: Path, part: str
) -> None:
    """Even if only one part of one speaker encoder differs."""
    other = _other_checkpoint(tiny_folder, tmp_path, part)
    fresh = other.engine.voices.of(voice)
    wanted = other.engine.voices.of_codes(voice.codes, voice.transcript, voice.provenance)
    assert_equal(fresh, wanted)
    changed = {"ar": ("ar_speaker",), "nar": ("nar_speaker",)}.get(part.split(".")[0])
    for name in changed or ("ar_speaker", "nar_speaker"):
        assert not torch.equal(getattr(fresh, name), getattr(voice, name))
    stale = replace(voice, checkpoint=fresh.checkpoint)
    one, two = (other.generate("hello", v, cfg=SETTINGS, seed=1) for v in (voice, wanted))
    assert torch.equal(one.codes, two.codes)
    # What a stale voice would have given differs, so the comparison above says something.
    heard = other.generate("hello", stale, cfg=SETTINGS, seed=1)
    assert not torch.equal(heard.codes, one.codes)


def _other_checkpoint(source: Path, folder: Path, part: str) -> Mars5TTS:
    (folder / "mars5_codec.safetensors").symlink_to(source / "mars5_codec.safetensors")
    noise = torch.Generator().manual_seed(3)
    for kind in ("ar", "nar"):
        weights = read_checkpoint(source / f"mars5_{kind}.safetensors").weights
        for name, tensor in weights.items():
            if part == "everything" or f"{kind}.{name}".startswith(part):
                tensor += 0.5 * torch.randn(tensor.shape, generator=noise)
        path = folder / f"mars5_{kind}.safetensors"
        write_checkpoint(path, weights, *tiny_tokenizers(), tiny_config())
    return Mars5TTS.from_pretrained(folder, device="cpu")


def test_the_fingerprint_depends_on_the_weights_alone(
    tiny: Mars5TTS, tmp_path: Path, voice: Voice
) -> None:
    again = Mars5TTS.from_pretrained(write_tiny_model(tmp_path), device="cpu")
    assert again.engine.voices.of(voice) is voice
    assert tiny.engine.voices.of(voice) is voice


def test_a_voice_of_another_codec_is_refused(tiny: Mars5TTS, voice: Voice) -> None:
    with pytest.raises(
        VoiceError, match=r"codec 'encodec', this model uses 'mel-rvq-[0-9a-f]{8}': make it"
    ):
        tiny.generate("hello", replace(voice, codec="encodec"))


def test_vectors_of_another_width_are_refused(tiny: Mars5TTS, voice: Voice) -> None:
    for broken in (
        replace(voice, ar_speaker=torch.ones(7)),
        replace(voice, nar_speaker=torch.ones(7)),
    ):
        with pytest.raises(VoiceError, match=r"speaker vectors of .*this model needs"):
            tiny.generate("hello", broken)


# ---------------------------------------------------------------- writing


def test_nothing_is_half_written(
    voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VoiceError, match=r"cannot write the voice .*missing.*existing folder"):
        voice.save(tmp_path / "missing" / "v")
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    for bad in (file / "v", tmp_path, f"{tmp_path}/zero\0byte", tmp_path / ("v" * 999)):
        with pytest.raises(VoiceError, match="cannot write the voice"):
            voice.save(bad)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(VoiceError, match="No space left on device"):
        voice.save(file)
    assert file.read_bytes() == b"kept"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_pipe_is_not_replaced(voice: Voice, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v")
    with pytest.raises(VoiceError, match="it is a device or a pipe, not a file"):
        voice.save(tmp_path / "v")
    assert (tmp_path / "v").is_fifo()


# ---------------------------------------------------------------- damaged and foreign files


def _damaged(path: Path, voice: Voice, *, drop: str = "", texts: Any = (), **changes: Any) -> Path:
    """A saved voice, then with other tensors (`changes`) or metadata (`texts`)."""
    from safetensors import safe_open

    voice.save(path)
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), **dict(texts)}
    tensors = {**load_file(path), **changes}
    save_file({n: t for n, t in tensors.items() if n != drop}, path,
              {n: t for n, t in metadata.items() if n != drop})  # fmt: skip
    return path


CODES = torch.zeros(3, 8, dtype=torch.int16)
NAN = torch.full((32,), torch.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": "format"}, f"format is None, expected '{FORMAT}'"),
        ({"texts": {"format": "mars5-voice 9"}}, "format is 'mars5-voice 9', expected"),
        ({"drop": "codes"}, "lacks codes"),
        ({"drop": "ar_speaker"}, "lacks codes, speaker vectors"),
        ({"drop": "nar_speaker"}, "lacks codes, speaker vectors"),
        ({"drop": "codec"}, "or the codec's name"),
        ({"codes": CODES[:, :7].contiguous()}, r"shape \(3, 7\), expected"),
        ({"codes": CODES[0].contiguous()}, r"shape \(8,\), expected"),
        ({"codes": CODES[:0]}, "has 0 frames"),
        ({"codes": torch.zeros(MAX_FRAMES + 1, 8, dtype=torch.int16)}, "has 8193 frames"),
        ({"codes": CODES + 1024}, r"outside 0\.\.1023"),
        ({"codes": CODES - 1}, r"outside 0\.\.1023"),
        ({"codes": CODES.float()}, r"codes are torch\.float32"),
        ({"ar_speaker": NAN}, "ar_speaker is no vector of finite"),
        ({"nar_speaker": torch.tensor([torch.inf])}, "nar_speaker is no vector of finite"),
        ({"nar_speaker": torch.ones(1, 32)}, "nar_speaker is no vector"),
        ({"ar_speaker": torch.ones(32).long()}, "ar_speaker is no vector"),
        ({"texts": {"transcript": " "}}, "the transcript ' ' has no letter"),
        ({"texts": {"transcript": "a\0b"}}, r"control character U\+0000"),
        ({"texts": {"transcript": "word " * 2000}}, "10000 characters"),
        ({"texts": {"provenance": "[1]"}}, "provenance is no object"),
        ({"texts": {"provenance": "{"}}, "no intact voice file"),
        ({"texts": {"provenance": "[" * 50_000}}, "no intact voice file"),
        ({"texts": {"frame_rate": "nan"}}, "frame_rate is nan"),
        ({"texts": {"frame_rate": "-1"}}, r"frame_rate is -1\.0"),
        ({"texts": {"frame_rate": "fast"}}, "no intact voice file"),
    ],
)
def test_damaged_voices(voice: Voice, tmp_path: Path, change: Any, message: str) -> None:
    path = _damaged(tmp_path / "v", voice, **change)
    with pytest.raises(VoiceError, match=message) as caught:
        Voice.load(path)
    assert str(path) in str(caught.value)


def test_the_undamaged_file_loads(voice: Voice, tmp_path: Path) -> None:
    assert_equal(Voice.load(_damaged(tmp_path / "v", voice)), voice)
    odd = _damaged(tmp_path / "v", voice, texts={"provenance": json.dumps({"year": 1999})})
    assert Voice.load(odd).provenance == {"year": "1999"}


@pytest.mark.parametrize("kind", ["F8_E8M0", "F4"])
def test_a_tensor_of_a_type_that_torch_lacks(voice: Voice, tmp_path: Path, kind: str) -> None:
    path = _damaged(tmp_path / "v", voice, more=torch.zeros(2, dtype=torch.uint8))
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["more"] |= {"dtype": kind, "shape": [4 if kind == "F4" else 2]}
    written = json.dumps(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + data[end:])
    with pytest.raises(VoiceError, match=r"of type .*, which cannot be read|no intact voice file"):
        Voice.load(path)


def test_every_truncation_is_refused(voice: Voice, tmp_path: Path) -> None:
    path = tmp_path / "v"
    voice.save(path)
    whole = path.read_bytes()
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(VoiceError, match="no intact voice file"):
            Voice.load(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(VoiceError, match="no intact voice file"):
        Voice.load(path)


def test_foreign_files(tiny_folder: Path, tmp_path: Path) -> None:
    for name, data in {
        "page": b"<!DOCTYPE html><html></html>",
        "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.",
        "huge header": (2**62).to_bytes(8, "little") + b"{}",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(VoiceError, match="no intact voice file"):
            Voice.load(tmp_path / name)
    with pytest.raises(VoiceError, match="format is None"):
        Voice.load(tiny_folder / "mars5_ar.safetensors")
    for missing in (tmp_path / "none", tmp_path, "zero\0byte", "v" * 999):
        with pytest.raises(VoiceError, match=r"no voice file at .*mars5 voice make"):
            Voice.load(missing)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_recording_is_no_voice_and_a_voice_no_recording(
    suffix: str, voice: Voice, tmp_path: Path
) -> None:
    """By what they hold, whatever their names."""
    write_audio(tmp_path / f"a{suffix}", torch.rand(24_000) - 0.5)
    recording = (tmp_path / f"a{suffix}").rename(tmp_path / "a.voice")
    with pytest.raises(VoiceError, match=r"is a recording, not a voice file: give it to --ref"):
        Voice.load(recording)
    with recording.open("ab") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(VoiceError, match="is a recording"):
        Voice.load(recording)
    replace(voice, provenance={"note": "x" * 100_000}).save(tmp_path / "v.wav")
    with pytest.raises(AudioInputError, match="is a voice file, not audio: give it to --voice"):
        load_reference(tmp_path / "v.wav")


def test_oversized_files_are_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "v"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(VoiceError, match=f"larger than {MAX_FILE_BYTES} bytes"):
        Voice.load(path)


# ---------------------------------------------------------------- blends


def test_the_arithmetic_of_a_blend(voice: Voice) -> None:
    one = replace(voice, ar_speaker=torch.tensor([2.0, 0.0]), nar_speaker=torch.tensor([0.0, 1.0]))
    other = replace(
        voice, ar_speaker=torch.tensor([0.0, 4.0]), nar_speaker=torch.tensor([0.0, 3.0])
    )
    blend = Voice.blend([(one, 6), (other, 2)])
    # 0.75 * (2, 0) + 0.25 * (0, 4) = (1.5, 1), brought to the length 0.75 * 2 + 0.25 * 4 = 2.5
    wanted = torch.tensor([1.5, 1.0]) * 2.5 / 3.25**0.5
    assert torch.allclose(blend.ar_speaker, wanted)
    assert torch.allclose(blend.nar_speaker, torch.tensor([0.0, 1.5]))
    assert blend.ar_speaker.dtype == torch.float32
    assert blend.is_blend
    assert blend.codes.shape == (0, 8)
    assert blend.transcript is None
    assert (blend.codec, blend.checkpoint) == (voice.codec, voice.checkpoint)
    assert blend.provenance == {
        "blend": "0.75 of voice 1 + 0.25 of voice 2",
        "1.source": "a test", "1.of": "Grüße", "2.source": "a test", "2.of": "Grüße",
    }  # fmt: skip


def test_a_blend_of_one_voice_keeps_its_vectors(voice: Voice) -> None:
    for parts in ([(voice, 3)], [(voice, 1), (voice, 2.5)]):
        blend = Voice.blend(parts)
        assert torch.allclose(blend.ar_speaker, voice.ar_speaker, atol=1e-6)
        assert torch.allclose(blend.nar_speaker, voice.nar_speaker, atol=1e-6)


def test_a_blend_is_saved_and_speaks(tiny: Mars5TTS, voice: Voice, tmp_path: Path) -> None:
    other = replace(voice, ar_speaker=voice.ar_speaker.roll(1))
    blend = Voice.blend([(voice, 1), (other, 1)])
    blend.save(tmp_path / "v")
    loaded = Voice.load(tmp_path / "v")
    assert_equal(loaded, blend)
    assert not voice.is_blend
    shallow = replace(SETTINGS, deep_clone=False)
    one, two = (tiny.generate("hello", v, cfg=shallow, seed=1) for v in (blend, loaded))
    assert torch.equal(one.codes, two.codes)
    again = Voice.blend([(loaded, 1), (blend, 1)])
    assert torch.allclose(again.ar_speaker, blend.ar_speaker, atol=1e-6)
    assert again.provenance["2.1.source"] == "a test"


def test_what_a_blend_cannot_do(tiny: Mars5TTS, voice: Voice) -> None:
    blend = Voice.blend([(voice, 1)])
    with pytest.raises(VoiceError, match=r"a blend, which has no recording .*leave the transcript"):
        tiny.generate("hello", blend, "what was said")
    with pytest.raises(VoiceError, match=r"blend made with the checkpoint 'other'.*blend them"):
        tiny.generate("hello", replace(blend, checkpoint="other"))
    with pytest.raises(TextError, match=r"^the voice is a blend, .*: set deep.*\(--shallow\)$"):
        tiny.generate("hello", blend, cfg=SETTINGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codec": "encodec"}, r"voice 1 was made with the codec 'mel.*voice 2 with 'encodec'"),
        ({"checkpoint": "other"}, r"voice 2 with 'other': make both again"),
        ({"ar_speaker": torch.ones(7)}, "ar_speaker of different widths"),
    ],
)
def test_voices_that_do_not_mix(voice: Voice, change: Any, message: str) -> None:
    with pytest.raises(VoiceError, match=message):
        Voice.blend([(voice, 1), (replace(voice, **change), 1)])


def test_opposite_voices_cancel_out(voice: Voice) -> None:
    opposite = replace(voice, nar_speaker=-voice.nar_speaker)
    with pytest.raises(VoiceError, match="cancel out in nar_speaker"):
        Voice.blend([(voice, 1), (opposite, 1)])
    assert Voice.blend([(voice, 2), (opposite, 1)]).is_blend


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), True, "1", None])
def test_weights_that_are_none(voice: Voice, weight: Any) -> None:
    with pytest.raises(VoiceError, match="weight of voice 2 must be positive"):
        Voice.blend([(voice, 1), (voice, weight)])


def test_weights_are_any_real_numbers(voice: Voice) -> None:
    other = replace(voice, ar_speaker=voice.ar_speaker.flip(0))
    wanted = Voice.blend([(voice, 0.5), (other, 1.5)])
    for weights in ((np.float32(0.5), np.float64(1.5)), (Fraction(1, 2), Fraction(3, 2))):
        assert_equal(Voice.blend([(voice, weights[0]), (other, weights[1])]), wanted)  # type: ignore[arg-type,list-item]
    strength = np.float32(0.5)
    styled = voice.with_style(other, strength)  # type: ignore[arg-type]
    assert torch.equal(styled.ar_speaker, voice.with_style(other, 0.5).ar_speaker)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a.voice": 0.5}, r"a list of pairs \(voice, weight\), got dict"),
        ("a.voice", r"a list of pairs \(voice, weight\), got str"),
        (
            [("a.voice", 0.5)],
            r"part 1 of a blend must begin with a Voice, got 'a.voice': ",
        ),
        (["a.voice"], r"part 1 of a blend must be \(voice, weight\), got 'a.voice'"),
    ],
)
def test_parts_that_are_none(parts: Any, message: str) -> None:
    with pytest.raises(VoiceError, match=message):
        Voice.blend(parts)


@pytest.mark.parametrize("n", [0, 17])
def test_too_few_and_too_many_voices(voice: Voice, n: int) -> None:
    with pytest.raises(VoiceError, match=f"1 to 16 voices, got {n}"):
        Voice.blend([(voice, 1)] * n)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": {"transcript": "words"}}, "is a blend of voices, but has a transcript"),
        ({"codes": CODES}, "is a blend of voices, but has 3 frames"),
        ({"drop": "kind"}, "has 0 frames"),
    ],
)
def test_damaged_blends(voice: Voice, tmp_path: Path, change: Any, message: str) -> None:
    path = _damaged(tmp_path / "v", Voice.blend([(voice, 1)]), **change)
    with pytest.raises(VoiceError, match=message):
        Voice.load(path)
