"""Options of the command line: what they reach, and that the pages name no others."""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config, write_tiny_model

from mars5 import Mars5TTS, device
from mars5.audio import write_audio
from mars5.cli import main
from mars5.commands.arguments import build_parser
from mars5.commands.options import DTYPES
from mars5.engine import Task
from mars5.errors import ConfigError
from mars5.train.__main__ import parser as training

QUICK = ["--device", "cpu", "--seed", "3", "--steps", "1", "--set", "generate_max_len_override=90"]


@pytest.fixture(scope="module")
def cautious(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that recommends shallow clones, as nano does."""
    tiny = tiny_config()
    config = replace(tiny, defaults={**tiny.defaults, "deep_clone": False})
    return str(write_tiny_model(tmp_path_factory.mktemp("model"), config))


@pytest.fixture
def here(tmp_path: Path, speechlike: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_audio(tmp_path / "ref.wav", torch.from_numpy(speechlike))
    (tmp_path / "words.txt").write_text("# how the hen is called\nhen = chi ken\n\n")
    (tmp_path / "lines.txt").write_text("the hen\n")
    return tmp_path


LINES = {
    "say": ["say", "the hen", "-o", "a.wav"],
    "say -f": ["say", "-f", "lines.txt", "-o", "a.wav"],
    "stream": ["stream", "the hen", "-o", "a.wav"],
    "batch": ["batch", "lines.txt", "-o", "out"],
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", LINES)
def test_a_lexicon_reaches_the_text(name: str, cautious: str, tasks: list[Task]) -> None:
    line = [*LINES[name], "--model", cautious, "--ref", "ref.wav", *QUICK]
    assert main([*line, "--lexicon", "words.txt"]) == 0
    assert {task.text for task in tasks} == {"the chi ken"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", LINES)
def test_the_speed_reaches_the_settings(name: str, cautious: str, tasks: list[Task]) -> None:
    line = [*LINES[name], "--model", cautious, "--ref", "ref.wav", *QUICK]
    assert main([*line, "--speed", "0.8"]) == 0
    assert {task.cfg.speed for task in tasks} == {0.8}


@pytest.mark.parametrize("name", LINES)
def test_a_lexicon_is_refused_before_the_model_is_loaded(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Mars5TTS, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    (here / "words.txt").write_text("hen = chi ken\nhen\n")
    assert main([*LINES[name], "--ref", "ref.wav", "--lexicon", "words.txt"]) == 1
    assert "words.txt, line 2: expected 'word = how it is said'" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", LINES)
def test_a_transcript_that_is_not_used_is_told(
    name: str, cautious: str, tasks: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*LINES[name], "--model", cautious, "--ref", "ref.wav", *QUICK]
    transcript = ["--ref-text", "what is said"]
    told = "mars5: the transcript is not used: shallow clones are recommended here; --deep uses it"
    depths = []
    for more, is_told in (
        (transcript, True),
        ([*transcript, "--quiet"], False),
        ([*transcript, "--shallow"], False),
        ([*transcript, "--deep"], False),
        ([], False),
    ):
        for made in Path().glob("out/*"):
            made.unlink()
        assert main([*line, *more]) == 0
        assert (told in capsys.readouterr().err.splitlines()) == is_told
        depths.append(tasks[-1].cfg.deep_clone)
    assert depths == [False, False, False, True, False]


LOADING = {
    **LINES,
    "edit": ["edit", "ref.wav", "--transcript", "the hen", "--new", "the cock"],
    "voice make": ["voice", "make", "ref.wav", "-o", "a.voice"],
    "eval": ["eval", "nano", "--only-words"],
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", LOADING)
def test_the_precision_reaches_the_loading(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(*_: object, **given: object) -> None:
        loaded.append((given["dtype"], given["quantize"]))
        raise ConfigError("enough")

    monkeypatch.setattr(Mars5TTS, "from_pretrained", load)
    monkeypatch.setattr("mars5.eval.command.Recogniser", lambda *_: None)
    for more in ([], ["--dtype", "bfloat16"], ["--quantize", "int8"]):
        assert main([*LOADING[name], *more]) == 1
    assert loaded == [(None, None), (torch.bfloat16, None), (None, "int8")]


@pytest.mark.usefixtures("here")
def test_int8_beside_half_precision_is_refused(
    cautious: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*LINES["say"], "--model", cautious, "--ref", "ref.wav", *QUICK]
    assert main([*line, "--quantize", "int8", "--dtype", "float16"]) == 1
    assert "error: quantize='int8' is for a CPU" in capsys.readouterr().err


def test_precisions_offered_are_those_there_are() -> None:
    assert {getattr(torch, name) for name in DTYPES} == set(device.DTYPES)


@pytest.mark.parametrize(
    "line", [["say", "x", "--deep", "--shallow"], ["edit", "a.wav", "--shallow"]]
)
def test_depths_that_cannot_be_meant(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--transcript", "a", "--new", "b"] if line[0] == "edit" else []
    with pytest.raises(SystemExit, match="2"):
        main([*line, *more])
    assert "--shallow" in capsys.readouterr().err


# ---------------------------------------------------------------- what the pages name

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "mars5" / "nano" / "README.md"]
OF_OTHERS = {"--check", "--index-url"}  # of ruff, of pip


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= set().union(*map(options_of, action.choices.values()))
    return found


def shell_lines(page: Path) -> list[str]:
    """The lines of a page's blocks that begin with `mars5`, whole."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    whole = "\n".join(blocks).replace("\\\n", " ")
    found = re.findall(r"^(?:\$ |.*&& )?(mars5 [^|>&#\n]*)", whole, re.MULTILINE)
    return [line for line in found if not re.search(r"[{…]|\.\.\.", line)]


def test_pages_name_options_that_exist() -> None:
    known = options_of(build_parser()) | options_of(training()) | OF_OTHERS
    for script in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'"(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    unknown = {
        f"{page.name}: {option}"
        for page in PAGES
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.read_text(encoding="utf-8"))
        if option not in known
    }
    assert unknown == set()


LINES_OF_PAGES = [
    pytest.param(line, id=f"{page.name}-{i}")
    for page in PAGES
    for i, line in enumerate(shell_lines(page))
]


@pytest.mark.parametrize("line", LINES_OF_PAGES)
def test_lines_of_pages_are_understood(line: str) -> None:
    assert build_parser().parse_args(shlex.split(line)[1:]).command


def test_the_pages_have_them() -> None:
    assert len(LINES_OF_PAGES) > 20
