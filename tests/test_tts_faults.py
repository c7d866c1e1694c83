"""What the facade refuses, on a tiny random system: rows D and E of the table of faults."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spoken import DEEP, SAID, SHORT, TEXT, assert_same, end_after
from torch import Tensor

from mars5 import InferenceConfig, Mars5Error, Mars5TTS, Voice
from mars5.config import PromptConvention
from mars5.device import at_work, resolve_device, resolve_dtype
from mars5.errors import (
    ConfigError,
    DeviceError,
    GenerationError,
    OutOfMemoryError,
    TextError,
)
from mars5.nar.model import ResidualTransformer
from mars5.prompt import build_prompt


@pytest.fixture(scope="module")
def voice(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    return tiny.voice(speechlike, SAID)


# ---------------------------------------------------------------- D. text


@pytest.mark.parametrize("text", ["", "  \n\t", "?!... -- ,", "😀🎉 👍", "\u200b"])
def test_nothing_to_say(tiny: Mars5TTS, voice: Voice, text: str) -> None:
    with pytest.raises(TextError, match=r"^text .* there is nothing to say"):
        tiny.generate(text, voice)
    with pytest.raises(TextError, match=r"^ref_transcript .* there is nothing to say"):
        tiny.generate(TEXT, voice, text)


def test_too_much_text(tiny: Mars5TTS, voice: Voice) -> None:
    long = "some words " * 10_000
    with pytest.raises(TextError, match=r"text has 110000 characters, at most 50000 .*-f"):
        tiny.generate(long, voice)
    with pytest.raises(TextError, match="ref_transcript has 110000 characters"):
        tiny.generate(TEXT, voice, long)


def test_one_unbroken_run_of_letters(tiny: Mars5TTS, voice: Voice) -> None:
    with pytest.raises(TextError, match="100000 characters"):
        tiny.generate("a" * 100_000, voice)
    with pytest.raises(TextError, match="take 182 ids, the model has room for 40"):
        tiny.generate("a" * 5_000, voice, cfg=SHORT)  # cut into pieces of 12 s
    assert len(tiny.text_tokenizer.encode("a" * 100_000)) == 100_000


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\x7f", "\ud800"])
def test_control_characters_and_surrogates(tiny: Mars5TTS, voice: Voice, character: str) -> None:
    number = f"U\\+{ord(character):04X} at position 2"
    with pytest.raises(TextError, match=f"^text holds the control character {number}"):
        tiny.generate(f"ab{character}cd", voice)
    with pytest.raises(TextError, match=f"^ref_transcript holds .*{number}"):
        tiny.generate(TEXT, voice, f"ab{character}cd")


def test_special_strings_are_plain_text(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "mars5.engine.build_prompt", lambda *args: (seen.append(build_prompt(*args)), seen[-1])[1]
    )
    specials = set(tiny.text_tokenizer.specials.values())
    cfg = replace(DEEP, generate_max_len_override=200)
    tiny.generate("<|endoftext|> and <|endofspeech|>", voice, "<|startoftext|> a", cfg, seed=1)
    inside = seen[0].ids[1 : seen[0].n_text - 1]
    assert not specials & set(inside)
    assert tiny.text_tokenizer.decode(inside) == (
        "<|startoftext|> a <|endoftext|> and <|endofspeech|>"
    )
    assert tiny.vocabulary.end not in seen[0].ids


def test_prompt_longer_than_the_window(tiny: Mars5TTS, voice: Voice) -> None:
    with pytest.raises(TextError, match="take 52 ids, the model has room for 40: shorten"):
        tiny.generate("x" * 50, voice, cfg=SHORT)
    with pytest.raises(TextError, match="take 40 ids, the model has room for 40"):
        tiny.generate("x" * 38, voice, cfg=SHORT)
    said, long = "x" * 2950, replace(DEEP, generate_max_len_override=9999)
    with pytest.raises(TextError, match="the model has room for 3000"):
        tiny.generate("x" * 50, voice, said, long)
    assert len(tiny.generate("x" * 37, voice, cfg=SHORT, seed=1).ar_codes) == 1


@pytest.mark.parametrize("text", [None, b"words", 5, ["words"]])
def test_text_must_be_a_string(tiny: Mars5TTS, voice: Voice, text: Any) -> None:
    with pytest.raises(TextError, match="text must be a string, got"):
        tiny.generate(text, voice)


# ---------------------------------------------------------------- E. config, device, memory


def test_settings(tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"top_p must be a number from 0\.0 to 1\.0, got 1\.5"):
        tiny.generate(TEXT, voice, cfg=InferenceConfig(top_p=1.5))
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        tiny.generate(TEXT, voice, cfg=InferenceConfig(temprature=1.0))  # type: ignore[call-arg]
    for bad in ({}, {"top_p": 0.5}, "fast"):
        with pytest.raises(ConfigError, match="cfg must be an InferenceConfig, got"):
            tiny.generate(TEXT, voice, cfg=bad)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="cfg must be an InferenceConfig, got"):
            tiny.voice(torch.ones(9), cfg=bad)  # type: ignore[arg-type]
    few = Mars5TTS(copy.copy(tiny.engine))
    short = (table[:20] for table in vars(tiny.schedule).values())
    few.engine.schedule = type(tiny.schedule)(*short)
    with pytest.raises(ConfigError, match="timesteps is 21, this model has 20"):
        few.generate(TEXT, voice, cfg=replace(SHORT, timesteps=21))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_device_that_is_not_there(tiny_folder: Path) -> None:
    for device, message in {
        "cuda": "torch sees 0 CUDA devices: use device='cpu'",
        "cuda:3": "'cuda:3' asked for",
        "mps": "use 'cpu'",
        "xpu": "must be one of cpu, cuda, mps, got 'xpu'",
        "gpu": "must be one of cpu, cuda, mps",
        "": "must be one of cpu, cuda, mps",
    }.items():
        with pytest.raises(DeviceError, match=message):
            Mars5TTS.from_pretrained(tiny_folder, device=device)
    assert resolve_device(None).type == "cpu"


def test_index_beyond_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="torch sees 2 CUDA devices"):
        resolve_device("cuda:2")


def test_precision_follows_the_device(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert resolve_device(None).type == "cuda"
    system = Mars5TTS.from_pretrained(tiny_folder, device="cpu")
    assert system.device.type == "cpu"
    assert system.ar.embed.weight.dtype == torch.float32
    assert resolve_dtype(None, torch.device("cuda")) == torch.float16
    assert resolve_dtype(torch.bfloat16, torch.device("cuda")) == torch.bfloat16


def test_out_of_memory_fails_one_request(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tiny.generate(TEXT, voice, cfg=DEEP, seed=1)

    def refuse(*args: Any, **kwargs: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(ResidualTransformer, "decode", refuse)
        with pytest.raises(OutOfMemoryError, match=r"\(CUDA out of memory.*: shorten the text"):
            tiny.generate(TEXT, voice, cfg=DEEP, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny.vocoder), "features", refuse)
        with pytest.raises(OutOfMemoryError, match="shorten the text"):
            tiny.vocode(wanted.codes)
        (item,) = tiny.tts_batch_iter([TEXT], voice, cfg=DEEP, seeds=[1])
        assert isinstance(item.error, OutOfMemoryError)
    assert_same(tiny.generate(TEXT, voice, cfg=DEEP, seed=1), wanted)


def test_every_way_to_run_out_of_memory() -> None:
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"
        ),
    ):
        with pytest.raises(OutOfMemoryError) as caught, at_work():
            raise error
        assert isinstance(caught.value, Mars5Error)
        assert isinstance(caught.value, MemoryError)
        assert caught.value.__cause__ is error
    with pytest.raises(OutOfMemoryError, match="can't allocate memory"), at_work():
        torch.empty(10**15)
    for other in (RuntimeError("shapes differ"), DeviceError("out of memory of such devices")):
        with pytest.raises(type(other)) as kept, at_work():
            raise other
        assert kept.value is other


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


TWO = "Hello there. Good morning to you."


def _spoken_and_streamed(system: Mars5TTS, voice: Voice) -> list[torch.Tensor]:
    stream = system.stream(TWO, voice, seed=1)
    chunks = [chunk.audio for chunk in stream]
    (batched,) = system.tts_batch([TWO], voice, seeds=[1])
    return [system.generate(TWO, voice, seed=1).audio, torch.cat(chunks), batched.audio]


def test_the_callers_autocast_changes_nothing(tiny: Mars5TTS, speechlike: np.ndarray) -> None:
    wanted = _spoken_and_streamed(tiny, tiny.voice(speechlike))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _spoken_and_streamed(tiny, tiny.voice(speechlike))
        assert torch.is_autocast_enabled("cpu")
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("double")
def test_audio_is_float32_whatever_the_default(tiny: Mars5TTS, speechlike: np.ndarray) -> None:
    found = _spoken_and_streamed(tiny, tiny.voice(speechlike))
    assert {audio.dtype for audio in found} == {torch.float32}


def test_speech_that_never_ends(
    tiny: Mars5TTS, voice: Voice, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = replace(SHORT, eos_penalty_factor=100, eos_estimated_gen_length_factor=100)
    speech = tiny.generate(TEXT, voice, cfg=cfg, seed=1)
    assert speech.finish_reason == "length"
    warnings = [r for r in caplog.records if r.name == "mars5" and r.levelno == logging.WARNING]
    assert ["reached its limit of 40 ids" in r.getMessage() for r in warnings] == [True]


def test_speech_that_ends(
    tiny: Mars5TTS,
    voice: Voice,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    end_after(monkeypatch, 9, tiny.vocabulary.end)
    speech = tiny.generate(TEXT, voice, cfg=SHORT, seed=1)
    assert speech.finish_reason == "stop"
    assert len(speech.codes) == 9
    assert not caplog.records


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("cfg", [SHORT, DEEP], ids=["shallow", "deep"])
def test_speech_that_ends_at_once(
    tiny: Mars5TTS,
    voice: Voice,
    monkeypatch: pytest.MonkeyPatch,
    cfg: InferenceConfig,
    published: bool,
) -> None:
    system = Mars5TTS(copy.copy(tiny.engine))
    system.engine.config = replace(tiny.config, prompt=PromptConvention(published, published))
    end_after(monkeypatch, 0, tiny.vocabulary.end)
    with pytest.raises(GenerationError, match="ended the speech at once: try another seed"):
        system.generate(TEXT, voice, cfg=cfg, seed=1)


def test_nothing_audible_is_an_error(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a vocoder that overflows."""
    broken = torch.full((1, 6400), torch.nan)
    monkeypatch.setattr(type(tiny.vocoder), "wave", lambda self, features: broken)
    with pytest.raises(GenerationError, match="no audible sound"):
        tiny.generate(TEXT, voice, cfg=SHORT, seed=1)
