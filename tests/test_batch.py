"""Many texts at once give what each gives alone, whatever their lengths, and fail alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mars5 import InferenceConfig, Mars5TTS, Speech
from mars5.ar.steps import EagerSteps
from mars5.engine import Engine
from mars5.errors import BatchError, ConfigError, GenerationError, OutOfMemoryError, TextError
from mars5.profiles import PROFILES
from mars5.voice import Voice
from mars5.voice_maker import VoiceMaker

SHORT = InferenceConfig(
    timesteps=4, generate_max_len_override=70, top_k=0, top_p=0.9, deep_clone=False
)
TEXTS = ["the hen", "a much longer text than that, so that it ends last", "he", "hello there you"]
SEEDS = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def voices(tiny: Mars5TTS, speechlike: np.ndarray) -> list[Voice]:
    """Of different lengths, one of them without a transcript."""
    return [
        tiny.voice(speechlike, "the first"),
        tiny.voice(speechlike[: len(speechlike) * 2 // 3], "another"),
        tiny.voice(speechlike[::-1].copy()),
    ]


def assert_same(one: Speech, other: Speech) -> None:
    assert torch.equal(one.ar_codes, other.ar_codes)
    assert torch.equal(one.codes, other.codes)
    torch.testing.assert_close(one.audio, other.audio, rtol=0, atol=1e-5)
    assert one.finish_reason == other.finish_reason


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_batch_is_what_its_texts_are_alone(
    tiny: Mars5TTS, voices: list[Voice], batch_size: int
) -> None:
    cfg = replace(SHORT, nar_guidance_w=2.0, freq_penalty=0.5, rep_penalty_window=5)
    refs = [voices[i % 3] for i in range(4)]
    found = tiny.tts_batch(TEXTS, refs, cfg=cfg, seeds=SEEDS, batch_size=batch_size)
    for speech, text, ref, seed in zip(found, TEXTS, refs, SEEDS, strict=True):
        assert_same(speech, tiny.generate(text, ref, cfg=cfg, seed=seed))


def test_the_exact_law(tiny: Mars5TTS, voices: list[Voice]) -> None:
    cfg = replace(SHORT, timesteps=200, nar_guidance_w=1.0, generate_max_len_override=12)
    found = tiny.tts_batch(["he", "hello"], voices[:2], cfg=cfg, seeds=1)
    for i, text in enumerate(["he", "hello"]):
        assert_same(found[i], tiny.generate(text, voices[i], cfg=cfg, seed=1 + i))


def test_deep_clones_of_references_of_different_lengths(
    tiny: Mars5TTS, voices: list[Voice]
) -> None:
    cfg = replace(SHORT, deep_clone=True, generate_max_len_override=140)
    refs = [voices[0], voices[1], voices[1], voices[0]]
    found = tiny.tts_batch(TEXTS, refs, cfg=cfg, seeds=SEEDS)
    for speech, text, ref, seed in zip(found, TEXTS, refs, SEEDS, strict=True):
        assert_same(speech, tiny.generate(text, ref, cfg=cfg, seed=seed))


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    batch_size=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,  # rounding may tip a choice, though rarely
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_lengths(
    tiny: Mars5TTS, voices: list[Voice], lengths: list[int], batch_size: int, seed: int
) -> None:
    texts = [("he then " * 4)[:n].strip() for n in lengths]
    cfg = replace(SHORT, generate_max_len_override=45)
    found = tiny.tts_batch(texts, voices[0], cfg=cfg, seeds=seed, batch_size=batch_size)
    for i, (speech, text) in enumerate(zip(found, texts, strict=True)):
        assert_same(speech, tiny.generate(text, voices[0], cfg=cfg, seed=seed + i))


def test_settings_of_the_model_and_references_as_audio(
    tiny: Mars5TTS, speechlike: np.ndarray
) -> None:
    """Without settings, whether a clone is deep depends on each item's transcript."""
    said = ["the first", None]
    found = tiny.tts_batch(TEXTS[:2], [speechlike] * 2, said, seeds=3)
    for i, speech in enumerate(found):
        assert_same(speech, tiny.generate(TEXTS[i], speechlike, said[i], seed=3 + i))


def test_a_reference_for_all_is_encoded_once(
    tiny: Mars5TTS, speechlike: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    original = VoiceMaker.make
    monkeypatch.setattr(
        VoiceMaker, "make", lambda self, *a, **k: (calls.append(a), original(self, *a, **k))[1]
    )
    tiny.tts_batch(TEXTS[:3], speechlike, cfg=SHORT, seeds=1)
    assert len(calls) == 1


def test_the_profile_of_the_model_serves_a_batch(
    tiny: Mars5TTS, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "profile", "instruct")
    for refs, deep in ((voices[:2], True), (voices[1:], False)):  # the third has no transcript
        cfg = replace(PROFILES["instruct"].config(tiny.config), deep_clone=deep)
        found = tiny.tts_batch(["he", "hello"], refs, seeds=1)
        for one, other in zip(
            found, tiny.tts_batch(["he", "hello"], refs, cfg=cfg, seeds=1), strict=True
        ):
            assert_same(one, other)


def test_the_profile_is_chosen_without_what_is_no_text(
    tiny: Mars5TTS, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "profile", "auto")
    items = tiny.tts_batch_iter(["he", None], voices[2], seeds=1)  # type: ignore[list-item]
    errors = {item.index: item.error for item in items}
    assert errors[0] is None
    assert isinstance(errors[1], TextError)


def test_no_texts(tiny: Mars5TTS) -> None:
    assert tiny.tts_batch([]) == []


def test_without_seeds_the_global_generator_decides(tiny: Mars5TTS, voices: list[Voice]) -> None:
    torch.manual_seed(4)
    first = tiny.tts_batch(TEXTS[:2], voices[0], cfg=SHORT)
    torch.manual_seed(4)
    for one, other in zip(tiny.tts_batch(TEXTS[:2], voices[0], cfg=SHORT), first, strict=True):
        assert_same(one, other)


# ---------------------------------------------------------------- failures


def test_a_text_that_fails_leaves_the_others(tiny: Mars5TTS, voices: list[Voice]) -> None:
    texts = [TEXTS[0], " ", TEXTS[2], "x" * 500]
    with pytest.raises(BatchError, match=r"2 of 4 texts failed.*text 1") as caught:
        tiny.tts_batch(texts, voices[0], cfg=SHORT, seeds=SEEDS)
    assert sorted(caught.value.errors) == [1, 3]
    assert all(isinstance(error, TextError) for error in caught.value.errors.values())
    for i in (0, 2):
        wanted = tiny.generate(texts[i], voices[0], cfg=SHORT, seed=SEEDS[i])
        assert_same(caught.value.speeches[i], wanted)
    assert caught.value.speeches[1] is caught.value.speeches[3] is None


@pytest.mark.parametrize("most", [1, 2])
def test_too_large_a_batch_is_halved(
    tiny: Mars5TTS, voices: list[Voice], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    wanted = tiny.tts_batch(TEXTS, voices[0], cfg=SHORT, seeds=SEEDS)
    original = Engine.denoise

    def tight(self: Engine, estimator, known, cfg, generator):  # type: ignore[no-untyped-def]
        steps = original(self, estimator, known, cfg, generator)
        next(steps)  # it fails when numbers have been drawn
        if len(known.codes) > most:
            raise RuntimeError("CUDA out of memory")
        return steps

    monkeypatch.setattr(Engine, "denoise", tight)
    monkeypatch.setattr("mars5.batch.LEAST_FILLED", 0.0)  # all in one batch
    found = tiny.tts_batch(TEXTS, voices[0], cfg=SHORT, seeds=SEEDS)
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)


def test_what_does_not_fit_alone_is_reported(
    tiny: Mars5TTS, voices: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(Engine, "denoise", full)
    items = list(tiny.tts_batch_iter(TEXTS, voices[0], cfg=SHORT, seeds=SEEDS))
    assert sorted(item.index for item in items) == [0, 1, 2, 3]
    assert all(isinstance(item.error, OutOfMemoryError) for item in items)


@pytest.mark.parametrize("runs", [0, 60, 120])
def test_coarse_codes_out_of_memory(
    tiny: Mars5TTS, voices: list[Voice], monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    """What was complete is kept, and the next batch works as ever."""
    given = {"cfg": SHORT, "seeds": SEEDS, "batch_size": 1}
    wanted = tiny.tts_batch(TEXTS, voices[0], **given)  # type: ignore[arg-type]
    original, room = EagerSteps.run, [runs]

    def full(self: EagerSteps, noise: torch.Tensor) -> object:
        if not room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        room[0] -= 1
        return original(self, noise)

    with monkeypatch.context() as patch:
        patch.setattr(EagerSteps, "run", full)
        items = list(tiny.tts_batch_iter(TEXTS, voices[0], **given))  # type: ignore[arg-type]
    assert sorted(item.index for item in items) == [0, 1, 2, 3]
    spoken = {item.index: item.speech for item in items if item.speech is not None}
    assert bool(spoken) == bool(runs)
    assert len(spoken) < 4
    for index, speech in spoken.items():
        assert_same(speech, wanted[index])
    for item in items:
        assert item.index in spoken or isinstance(item.error, OutOfMemoryError)
    assert_same(tiny.tts_batch(TEXTS, voices[0], **given)[0], wanted[0])  # type: ignore[arg-type]


def test_weights_that_are_not_finite(tiny_folder, voices: list[Voice]) -> None:  # type: ignore[no-untyped-def]
    broken = Mars5TTS.from_pretrained(tiny_folder, device="cpu")
    broken.ar.ar.norm.weight.data.fill_(torch.nan)
    items = list(broken.tts_batch_iter(TEXTS, voices[0], cfg=SHORT, seeds=SEEDS))
    assert len(items) == 4
    assert all(isinstance(item.error, GenerationError) for item in items)


@pytest.mark.parametrize("seeds", [np.array([5, 6]), [np.int32(5), np.uint8(6)], np.int64(5)])
def test_seeds_of_numpy(tiny: Mars5TTS, voices: list[Voice], seeds: Any) -> None:
    wanted = tiny.tts_batch(TEXTS[:2], voices[0], cfg=SHORT, seeds=5)
    for one, other in zip(
        tiny.tts_batch(TEXTS[:2], voices[0], cfg=SHORT, seeds=seeds), wanted, strict=True
    ):
        assert_same(one, other)


def test_closing_early(tiny: Mars5TTS, voices: list[Voice]) -> None:
    items = tiny.tts_batch_iter(TEXTS, voices[0], cfg=SHORT, seeds=SEEDS, batch_size=1)
    assert next(items).speech is not None
    items.close()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": "hello"}, "texts must be a list"),
        ({"texts": 3}, "texts must be a list"),
        ({"ref_audio": [None]}, "ref_audio is a list of 1, but there are 2 texts"),
        ({"ref_transcript": ["a", "b", "c"]}, "ref_transcript is a list of 3"),
        ({"seeds": [1]}, "there are 1 seeds, but 2 texts"),
        ({"seeds": [1, -1]}, "a seed must be a whole number"),
        ({"seeds": [1, 1.5]}, "a seed must be a whole number"),
        ({"seeds": 2**63 - 1}, "a seed must be a whole number"),
        ({"seeds": 1.5}, "a seed must be a whole number"),
        ({"seeds": True}, "a seed must be a whole number"),
        ({"seeds": np.array([True, False])}, "a seed must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"batch_size": True}, "batch_size must be"),
        ({"cfg": {"top_k": 1}}, "cfg must be an InferenceConfig"),
    ],
)
def test_refused_at_once(tiny: Mars5TTS, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.tts_batch(**{"texts": ["he", "she"], **arguments})  # type: ignore[arg-type]
