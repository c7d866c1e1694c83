"""The reference's timbre: what the map does to statistics, and whom it belongs to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from mars5 import InferenceConfig, Mars5TTS, Voice
from mars5.config import N_CODEBOOKS
from mars5.engine import Engine
from mars5.errors import ConfigError
from mars5.nar import timbre as timbres
from mars5.nar.decode import Known
from mars5.nar.settle import settled
from mars5.nar.timbre import Timbre

TEXT, OTHER = "Good evening to all of you.", "The shop is closed on Mondays."


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
    timbre = replace(timbre, quiet=torch.tensor([-1e9]))
    mapped = timbre(made, torch.zeros(len(made)).long())
    for found, expected in zip(moments(mapped), moments(wanted), strict=True):
        assert_close(found, expected, rtol=1e-3, atol=1e-2)
    half = replace(Timbre.between(made, wanted, 0.5), quiet=timbre.quiet)
    assert_close(half(made, torch.zeros(len(made)).long()), made.lerp(mapped, 0.5))
    none = replace(Timbre.between(made, wanted, 0.0), quiet=timbre.quiet)
    assert_close(none(made, torch.zeros(len(made)).long()), made)


def test_code_frames_hold_several_mel_frames() -> None:
    timbre = Timbre.between(frames(1), frames(2), 1.0)
    sound = frames(3, n=10)
    rows = torch.zeros(5).long()
    together = timbre(sound.unflatten(0, (5, 2)).flatten(1), rows)
    assert_close(together.unflatten(1, (2, -1)).flatten(0, 1), timbre(sound, rows.repeat(2)))


def test_pauses_stay_as_they_are() -> None:
    made = frames(1)
    timbre = Timbre.between(made, frames(2), 1.0)
    pause = torch.full((1, 6), float(timbre.quiet) - 10)
    assert_close(timbre(pause, torch.tensor([0])), pause, rtol=1e-6, atol=1e-5)
    loud = made[made.mean(1).argmax()][None]
    assert (timbre(loud, torch.tensor([0])) - loud).abs().max() > 1


def test_a_silent_reference_leaves_finite_sound() -> None:
    timbre = Timbre.between(torch.zeros(50, 6), frames(1), 1.0)
    assert timbre.turn.isfinite().all()
    silent = Timbre.between(frames(1), torch.zeros(50, 6), 1.0)
    assert silent(frames(1), torch.zeros(4000).long()).isfinite().all()


def test_rows_of_a_batch_have_their_own_timbre() -> None:
    one, other = (
        Timbre.between(frames(1), frames(2), 1.0),
        Timbre.between(frames(2), frames(1), 1.0),
    )
    together = Timbre.stack([one, None, other])
    assert together is not None
    sound, first = frames(3, n=9), torch.zeros(9).long()
    rows = torch.tensor([0, 1, 2] * 3)
    found = together(sound, rows)
    assert_close(found[rows == 0], one(sound, first)[rows == 0])
    assert_close(found[rows == 1], sound[rows == 1])
    assert_close(found[rows == 2], other(sound, first)[rows == 2])
    assert Timbre.stack([None, None]) is None


def test_codes_settle_on_the_mapped_sound() -> None:
    """All but L0 are unknown; the sum of what is chosen comes near the map of what is expected."""
    generator = torch.Generator().manual_seed(7)
    sizes = torch.tensor([3.0, *(2.0 / (q + 1) for q in range(1, N_CODEBOOKS))])
    books = torch.randn(N_CODEBOOKS, 1024, 6, generator=generator) * sizes[:, None, None]
    codes = torch.randint(1024, (1, 20, N_CODEBOOKS), generator=generator)
    known = Known.from_coarse(codes[..., 0])
    belief = F.one_hot(codes[0, :, 1:], 1024).float()

    def sound(which: Tensor) -> Tensor:
        return torch.stack([books[q][which[0, :, q]] for q in range(N_CODEBOOKS)]).sum(0)

    timbre = Timbre.between(frames(1), frames(1) * 1.5 + 1, 1.0)
    wanted = timbre(sound(codes), torch.zeros(20).long())
    plain = settled(belief, known.codes, known.mask, known.unknown(), books)
    found = settled(belief, known.codes, known.mask, known.unknown(), books, timbre)
    assert torch.equal(found[..., 0], codes[..., 0])
    missed = (sound(found) - wanted).square().mean()
    assert missed < 0.2 * (sound(plain) - wanted).square().mean()


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
    return replace(nano.default_config, nar_timbre=timbre, **others)


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


def test_a_timbre_is_found_once_for_a_voice(
    nano: Mars5TTS, bright: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Voice] = []
    find = Engine._find_timbre

    def counted(self: Engine, voice: Voice, cfg: InferenceConfig) -> Timbre | None:
        found.append(voice)
        return find(self, voice, cfg)

    monkeypatch.setattr(Engine, "_find_timbre", counted)
    voice = replace(bright)  # not met before
    for text, temperature in ((TEXT, 1.0), (OTHER, 0.9)):  # the AR's settings are no matter
        cfg = settings(nano, 1.0, temperature=temperature)
        nano.generate(text, voice, cfg=cfg, seed=1)
    assert found == [voice]
    nano.generate(TEXT, voice, cfg=settings(nano, 1.0, nar_settle_step=0, timesteps=2), seed=1)
    nano.generate(TEXT, Voice.blend([(voice, 1.0), (bright, 1.0)]), cfg=settings(nano, 1.0), seed=1)
    assert found == [voice]  # neither drawn codes nor blends ask for one


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


def test_the_known_text_has_no_limit(nano: Mars5TTS, bright: Voice) -> None:
    cfg = settings(nano, 1.0, generate_max_len_override=30)
    speech = nano.generate("Oh no.", replace(bright), cfg=cfg, seed=1)
    assert len(speech.audio)


def test_other_codecs_have_no_timbre(
    tiny: Mars5TTS, speechlike: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mars5.engine.MelCodec", type("OfAnotherKind", (), {}))
    cfg = InferenceConfig(nar_timbre=0.5, deep_clone=False)
    with pytest.raises(ConfigError, match=r"nar_timbre is 0\.5: it needs a mel codec"):
        tiny.generate("hello", (speechlike, 24_000), cfg=cfg)
