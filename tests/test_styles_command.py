"""Profile and style at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_tiny_model

from mars5 import Mars5TTS, hub
from mars5.audio import write_audio
from mars5.cli import main
from mars5.commands.arguments import build_parser
from mars5.commands.styles import profile_of
from mars5.engine import Task
from mars5.styles import MANIFEST, StyleBank


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, speechlike: np.ndarray) -> str:
    """The tiny model, with a voice of its own."""
    folder = write_tiny_model(tmp_path_factory.mktemp("model"))
    voice = Mars5TTS.from_pretrained(folder, device="cpu").voice(torch.from_numpy(speechlike))
    voice.save(folder / hub.VOICE_FILE)
    return str(folder)


@pytest.fixture
def clip(tmp_path: Path, speechlike: np.ndarray) -> str:
    path = tmp_path / "clip.wav"
    write_audio(path, torch.from_numpy(speechlike[::-1].copy()))
    return str(path)


def say(*arguments: str) -> list[str]:
    return ["say", "Hello.", "--device", "cpu", "--seed", "3", *arguments]


def test_say_with_instructions_tells_what_they_chose(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.wav"
    words = ["--instructions", "warm and reassuring", "--style-strength", "0.5"]
    assert main(say("--model", model, "-o", str(out), *words)) == 0
    assert out.is_file()
    assert "mars5: style warm: 'warm and reassuring' is nearest to" in capsys.readouterr().err


def test_say_with_a_style_and_a_profile(
    model: str,
    clip: str,
    tmp_path: Path,
    tasks: list[Task],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / "a.wav")
    assert main(say("--model", model, "--profile", "flash", "-o", out, "--style", clip)) == 0
    assert "mars5: profile flash: asked for by name" in capsys.readouterr().err
    assert tasks[-1].cfg.timesteps == 8
    assert tasks[-1].voice.style_strength == 1
    assert not torch.equal(tasks[-1].voice.codes, tasks[-1].voice.delivery.codes)


def test_a_deep_clone_continues_a_style_that_is_transcribed(
    model: str, clip: str, tmp_path: Path, tasks: list[Task]
) -> None:
    options = ["--model", model, "--style", clip, "-o", str(tmp_path / "a.wav")]
    assert main(say(*options)) == 0
    assert not tasks[-1].cfg.deep_clone
    assert main(say(*options, "--style-text", "A clip.")) == 0
    assert tasks[-1].cfg.deep_clone
    assert tasks[-1].prompt.n_speech > 0


@pytest.mark.parametrize(("command", "chosen"), [("say", "pro"), ("stream", "flash")])
def test_auto_knows_whether_the_line_streams(command: str, chosen: str) -> None:
    args = build_parser().parse_args([command, "Hi.", "--profile", "auto"])
    profile = profile_of(args, "cuda", "Hi.", has_transcript=True)
    assert profile is not None
    assert profile.name == chosen


def test_unknown_instructions_fail_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(say("--model", str(tmp_path), "--instructions", "banana")) == 1
    assert "no style is like 'banana'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--style-text", "A clip."],
        ["--style-strength", "0.5"],
        ["--styles", "folder"],
        ["--style", "a.wav", "--instructions", "warm"],
        ["--style", "a.wav", "--style-strength", "1.5"],
        ["--profile", "fast"],
    ],
)
def test_lines_that_contradict_themselves(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(say(*options))
    assert caught.value.code == 2


def test_styles_lists_the_bank(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["styles"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == len(StyleBank.shipped().styles)
    assert "warm         warm and reassuring, a calm and friendly low voice" in out


def test_styles_shows_what_words_choose_in_a_folder_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"name": "rough", "file": "a.wav", "caption": "a rough pirate", "licence": "mine"}
    (tmp_path / MANIFEST).write_text(json.dumps(row))
    assert main(["styles", "pirate", "--styles", str(tmp_path)]) == 0
    assert "by 'pirate'" in capsys.readouterr().out
    assert main(["styles", "--json", "--styles", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[-1] == {"name": "rough", "caption": "a rough pirate", "licence": "mine"}
