"""Profiles, styles and instructions, whatever way of speaking they are given to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from mars5 import InferenceConfig, Mars5TTS, Voice, direction
from mars5.engine import Engine, Task
from mars5.errors import ConfigError, StyleError
from mars5.profiles import PROFILES
from mars5.styles import MANIFEST, StyleBank

TEXT = "the hen then said hello to us. Then the other hen said hello."
CFG = InferenceConfig(
    timesteps=2, generate_max_len_override=150, top_k=0, top_p=0.9, deep_clone=False
)
DEEP = replace(CFG, deep_clone=True, generate_max_len_override=230)

Say = Callable[..., torch.Tensor]


@pytest.fixture(scope="module")
def voice(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    return tiny.voice(speechlike, "he said")


@pytest.fixture(scope="module")
def style(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    return tiny.voice(speechlike[::-1][:20_000].copy(), "then")


@pytest.fixture
def speakers(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The speaker vector that the AR is given for each piece."""
    given: list[torch.Tensor] = []
    draw = Engine.draw

    def noted(self: Engine, task: Task) -> Any:
        given.append(task.ar_speaker)
        return draw(self, task)

    monkeypatch.setattr(Engine, "draw", noted)
    return given


def streamed(system: Mars5TTS, _: Path, *given: Any, **options: Any) -> torch.Tensor:
    stream = system.stream(TEXT, *given, seed=3, **options)
    list(stream)
    return stream.speech.audio


def narrated(system: Mars5TTS, _: Path, *given: Any, **options: Any) -> torch.Tensor:
    passages = system.narrate(TEXT, *given, seed=3, **options)
    return torch.cat([passage.audio for passage in passages])


def filed(system: Mars5TTS, folder: Path, *given: Any, **options: Any) -> torch.Tensor:
    path = folder / "out.wav"
    system.speak_file(TEXT, path, *given, seed=3, **options)
    return torch.from_numpy(sf.read(path, dtype="int16")[0])


@pytest.fixture(params=[streamed, narrated, filed])
def say(request: pytest.FixtureRequest, tiny: Mars5TTS, tmp_path: Path) -> Say:
    """A way of speaking, with the tiny system."""
    return lambda *given, **options: request.param(tiny, tmp_path, *given, **options)


@pytest.mark.parametrize("cfg", [CFG, DEEP])
def test_a_style_is_the_directed_voice(
    say: Say,
    tiny: Mars5TTS,
    voice: Voice,
    style: Voice,
    cfg: InferenceConfig,
    speakers: list[torch.Tensor],
) -> None:
    found = say(voice, cfg=cfg, style=style, style_strength=0.8)
    directed = tiny.directed(voice, style=style, style_strength=0.8)
    assert torch.equal(found, say(directed, cfg=cfg))
    plain = say(voice, cfg=cfg, style=style, style_strength=0)
    assert torch.equal(plain, say(voice, cfg=cfg))
    wanted = [directed.ar_speaker] * 4 + [voice.ar_speaker] * 4
    assert torch.equal(torch.stack(speakers), torch.stack(wanted))  # two pieces each
    if cfg.deep_clone:  # then the AR continues the style
        assert found.shape != plain.shape or not torch.equal(found, plain)


def test_instructions_are_the_style_that_they_choose(
    say: Say,
    tiny: Mars5TTS,
    voice: Voice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    speakers: list[torch.Tensor],
) -> None:
    say(voice, cfg=CFG, instructions="warm and reassuring")
    say(voice, cfg=CFG, style=StyleBank.shipped().choose("warm"))
    (tmp_path / "bank").mkdir()
    sf.write(tmp_path / "bank" / "own.wav", np.sin(np.arange(24_000) / 40) / 3, 24_000)
    row = {"name": "own", "file": "own.wav", "caption": "warm and reassuring", "licence": "mine"}
    (tmp_path / "bank" / MANIFEST).write_text(json.dumps(row), encoding="utf-8")
    monkeypatch.setattr(tiny, "style_bank", StyleBank(tmp_path / "bank"))
    say(voice, cfg=CFG, instructions="warm and reassuring")
    by_words, by_choice, by_own_bank = speakers[::2]
    assert torch.equal(by_words, by_choice)
    assert not torch.equal(by_words, by_own_bank)
    assert not torch.equal(by_words, voice.ar_speaker)


def test_a_profile_is_its_settings(say: Say, tiny: Mars5TTS, voice: Voice) -> None:
    found = say(voice, profile="flash")
    assert torch.equal(found, say(voice, cfg=PROFILES["flash"].config(tiny.config)))


def test_the_profile_of_the_system_serves_calls_without_settings(
    say: Say, tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = say(voice, profile="flash")
    monkeypatch.setattr(tiny, "profile", "flash")
    assert torch.equal(say(voice), wanted)
    other = say(voice, cfg=CFG)
    assert other.shape != wanted.shape or not torch.equal(other, wanted)


def test_auto_is_told_whether_somebody_waits(
    say: Say, voice: Voice, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    resolve = direction.resolve_profile

    def noted(name: str, device: str, **facts: Any) -> Any:
        told.append(facts)
        return resolve(name, device, **facts)

    monkeypatch.setattr(direction, "resolve_profile", noted)
    say(voice, profile="auto")
    live = request.node.callspec.params["say"] is streamed
    assert told == [{"characters": len(TEXT), "transcript": True, "live": live, "directed": False}]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"style": "a.wav", "instructions": "warm"}, ConfigError),
        ({"style_strength": 0.5}, ConfigError),
        ({"profile": "fast"}, ConfigError),
        ({"profile": "flash", "cfg": CFG}, ConfigError),
        ({"instructions": "xyzzy plugh"}, StyleError),
    ],
)
def test_what_cannot_be_is_refused_by_the_call(
    tiny: Mars5TTS, voice: Voice, tmp_path: Path, wrong: dict[str, Any], error: type[Exception]
) -> None:
    """Not only when somebody asks for sound."""
    with pytest.raises(error):
        tiny.stream(TEXT, voice, **wrong)
    with pytest.raises(error):
        tiny.narrate(TEXT, voice, **wrong)
    with pytest.raises(error):
        tiny.speak_file(TEXT, tmp_path / "out.wav", voice, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_another_style_makes_a_chapter_anew(
    tiny: Mars5TTS, voice: Voice, style: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"cfg": CFG, "seed": 3, "style": style, "style_strength": 0.8}
    utterance = Engine.utterance

    def killed(self: Engine, text: str, *args: Any) -> Any:
        if text.startswith("Then"):
            raise KeyboardInterrupt
        return utterance(self, text, *args)

    reused = []
    for change in ({}, {"style_strength": 0.7}, {"style": None, "style_strength": 1.0}):
        monkeypatch.setattr(Engine, "utterance", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny.speak_file(TEXT, tmp_path / "out.wav", voice, **given)
        monkeypatch.setattr(Engine, "utterance", utterance)
        chapter = tiny.speak_file(TEXT, tmp_path / "out.wav", voice, **{**given, **change})
        reused.append(chapter.reused)
    assert reused == [1, 0, 0]
