"""What a command line is refused for, before a model is loaded and before a file is touched."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import pytest

from mars5 import Mars5TTS
from mars5.cli import main
from mars5.commands import doctor
from mars5.commands.arguments import build_parser
from mars5.commands.checks import check_line
from mars5.errors import HubError
from mars5.eval import command

READER = Path(__file__).parent.parent / "examples" / "reader.wav"
WORDS = ["--transcript", "a b", "--new", "a c"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recording, a text and a folder named like audio; no model can be loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Mars5TTS, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    shutil.copy(READER, tmp_path / "me.wav")
    Path("text.txt").write_text("Hello.")
    Path("folder.wav").mkdir()
    for name in ("pipe.wav", "pipe.voice"):
        os.mkfifo(name)
    return tmp_path


def error_of(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a line is refused with; it must leave the recording alone."""
    assert main(line) == 1
    assert Path("me.wav").read_bytes() == READER.read_bytes()
    said = capsys.readouterr().err
    assert said.startswith("mars5: error: ")
    return said


OUTPUTS = {
    "the recording": (["voice", "make", "me.wav", "-o", "me.wav"], "-o is 'me.wav', but the name"),
    "blend": (["voice", "blend", "a", "b", "-o", "me.WAV"], "ends in .voice or .safetensors"),
    "voice to a pipe": (["voice", "make", "me.wav", "-o", "-"], "ends in .voice or .safetensors"),
    "voice folder": (["voice", "make", "me.wav", "-o", "."], "which is a folder"),
    "keep to a pipe": (["voice", "make", "me.wav", "-o", "v", "--keep", "-"], "--keep is '-', but"),
    "keep the recording": (
        ["voice", "make", "me.wav", "-o", "v", "--keep", "./me.wav"],
        "--keep would replace './me.wav', which is also read, as 'me.wav'",
    ),
    "keep a voice": (["voice", "make", "me.wav", "-o", "v", "--keep", "k.voice"], "--keep is 'k.v"),
    "edit to a pipe": (["edit", "me.wav", *WORDS, "-o", "-"], "-o is '-', but must end in one of"),
    "folder": (["say", "x", "-o", "folder.wav"], "-o is 'folder.wav', which is a folder"),
    "file nowhere": (["say", "-f", "text.txt", "-o", "gone/a.wav"], "there is no folder gone"),
    "file in a folder": (["say", "-f", "text.txt", "-o", "folder.wav"], "which is a folder"),
    "stream": (["stream", "x", "-o", "folder.wav"], "which is a folder"),
    "report on the text": (
        ["say", "-f", "text.txt", "--json", "text.txt"],
        "--json is 'text.txt', but must end in .json, or be -",
    ),
    "report nowhere": (["say", "x", "--json", "gone/a.json"], "--json is 'gone/a.json', but there"),
    "pipe": (["say", "x", "-o", "pipe.wav"], "which is a device or a pipe"),
    "voice in a pipe": (["voice", "make", "me.wav", "-o", "pipe.voice"], "a device or a pipe"),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_cannot_be_meant(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    line, said = OUTPUTS[name]
    assert said in error_of(line, capsys)


BANK = ["--instructions", "warm", "--styles", "bank"]
KEPT = {
    "say": ["say", "x", "--ref", "me.wav", "-o", "me.wav"],
    "say, other name": ["say", "x", "--ref", "me.wav", "-o", "folder.wav/../me.wav"],
    "say, link": ["say", "x", "--ref", "me.wav", "-o", "link.wav"],
    "say like": ["say", "x", "--style", "link.wav", "-o", "me.wav"],
    "say a file": ["say", "-f", "me.wav", "-o", "me.wav"],
    "say in a voice": ["say", "x", "--voice", "me.wav", "-o", "me.wav"],
    "say words": ["say", "x", "--lexicon", "me.wav", "-o", "me.wav"],
    "report": ["say", "x", "--ref", "me.wav", "--json", "link.json"],
    "say by a bank": ["say", "x", *BANK, "-o", "./bank/warm.wav"],
    "say by a bank, link": ["say", "x", *BANK, "-o", "me.wav"],
    "stream by a bank": ["stream", "x", *BANK, "-o", "bank/warm.wav"],
    "chapter by a bank": ["say", "-f", "text.txt", *BANK, "-o", "bank/warm.wav"],
    "batch by a bank": ["batch", "text.txt", *BANK, "-o", "bank"],
    "stream": ["stream", "x", "--ref", "me.wav", "-o", "me.wav"],
    "edit": ["edit", "me.wav", *WORDS, "-o", "me.wav"],
    "edit by times": ["edit", "text.txt", *WORDS, "--times", "me.wav", "-o", "me.wav"],
    "batch": ["batch", "text.txt", "-o", "out", "--ref", "out/00001.wav"],
    "batch, link": ["batch", "text.txt", "-o", "out", "--ref", "me.wav"],
    "batch of its list": ["batch", "out/manifest.jsonl", "-o", "out"],
    "make": ["voice", "make", "me.wav", "-o", "link.voice"],
    "keep": ["voice", "make", "me.wav", "-o", "v", "--keep", "link.wav"],
    "blend": ["voice", "blend", "me.wav:2", "b.voice", "-o", "link.voice"],
    "eval": ["eval", "nano", "--ref", "me.wav", "--json", "me.wav"],
    "eval of a list": ["eval", "nano", "--list", "text.txt", "--plot", "text.txt"],
}


@pytest.mark.parametrize("name", KEPT)
def test_no_input_is_replaced(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for link in ("link.wav", "link.json", "link.voice"):
        Path(link).symlink_to("me.wav")
    Path("out").mkdir()
    Path("out/00001.wav").symlink_to("../me.wav")
    Path("out/manifest.jsonl").write_text("Hello.")
    style_bank(clips=["warm.wav", "00001.wav"])
    said = error_of(KEPT[name], capsys)
    assert " would replace " in said
    assert "which is also read, as " in said
    assert Path("text.txt").read_text() == Path("out/manifest.jsonl").read_text() == "Hello."


def style_bank(clips: list[str]) -> None:
    """A bank in the folder "bank", whose clips are the recording."""
    Path("bank").mkdir()
    style = {"caption": "warm", "licence": "CC0"}
    rows = [json.dumps({**style, "name": clip, "file": clip}) for clip in clips]
    Path("bank/styles.jsonl").write_text("\n".join(rows))
    for clip in clips:
        Path("bank", clip).symlink_to("../me.wav")


def test_other_files_may_be_written_into_a_bank() -> None:
    style_bank(clips=["warm.wav"])
    check_line(build_parser().parse_args(["say", "x", *BANK, "-o", "bank/cold.wav"]))


def test_only_pipes_offer_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(["say", "x", "-o", "a.txt"], capsys).endswith(".mp3, or be -\n")
    assert error_of(["edit", "me.wav", *WORDS, "-o", "a.txt"], capsys).endswith(".mp3\n")


def test_standard_output_takes_one_of_audio_and_report(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["say", "x", "-o", "-", "--json", "-"])
    assert "-o - and --json - would both write" in capfd.readouterr().err


INPUTS = {
    "say": ["say", "x", "--ref", "gone.wav"],
    "say like": ["say", "x", "--style", "gone.wav"],
    "say a file": ["say", "-f", "text.txt", "--ref", "gone.wav"],
    "stream": ["stream", "x", "-o", "a.wav", "--ref", "gone.wav"],
    "batch": ["batch", "text.txt", "-o", "out", "--ref", "gone.wav"],
    "batch voice": ["batch", "text.txt", "-o", "out", "--voice", "gone.wav"],
    "edit": ["edit", "gone.wav", *WORDS],
    "eval": ["eval", "nano", "--ref", "gone.wav"],
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_are_not_there(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "Recogniser", lambda *_: pytest.fail("loaded"))
    assert "gone.wav" in error_of(INPUTS[name], capsys)


FROM_STANDARD_INPUT = (["say", "-"], ["stream", "-", "-o", "a.wav"])


@pytest.mark.parametrize("line", FROM_STANDARD_INPUT, ids=["say", "stream"])
def test_standard_input_that_is_closed(
    line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    said = error_of(line, capsys)
    assert "standard input is closed: send a text to it, as in 'mars5 say - < chapter.txt'" in said


def test_standard_input_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with os.fdopen(os.open("text.txt", os.O_WRONLY), encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert "cannot read standard input: " in error_of(["say", "-"], capsys)


@pytest.mark.parametrize("text", ["a text.txt", "text.txt", "-", "x" * 5000, "a\nb"])
@pytest.mark.parametrize("command", ["say", "stream"])
def test_a_text_that_names_a_file_draws_a_warning(
    command: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise HubError("no model")

    for name in ("a text.txt", "-"):
        Path(name).write_text("Hello.")
    monkeypatch.setattr(Mars5TTS, "from_pretrained", absent)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hello."), "utf-8"))
    assert main([command, text, "-o", "a.wav"]) == 1
    remedies = {"text.txt": "-f text.txt", "a text.txt": "-f 'a text.txt'"}
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warned == [
        f"mars5: warning: speaking the name of the file {text!r}: 'mars5 say {remedy}' speaks its "
        "text"
        for name, remedy in remedies.items()
        if name == text
    ]


@pytest.mark.parametrize("more", [[], ["--sweep", "folder"]])
def test_eval_looks_for_the_model_before_it_loads_the_ears(
    more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "Recogniser", lambda *_: pytest.fail("loaded"))
    assert "'nope' is neither 'nano', nor a folder" in error_of(["eval", "nope", *more], capsys)


def test_doctor_tells_of_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"one": object(), "two": None}
    monkeypatch.setattr(doctor, "find_spec", found.get)
    monkeypatch.setattr(doctor, "EXTRAS", {"here": ("one",), "lacking": ("one", "two")})
    facts = {fact.name: fact.value for fact in doctor.examine("no such place")}
    assert facts["mars5[here]"] == "installed"
    assert facts["mars5[lacking]"].startswith("not installed (two missing): run `pip install")
    assert "remedy" not in facts  # nothing could be fetched


def test_doctor_says_how_to_fetch_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, **_: object) -> None:
        raise HubError(f"{name} is not in the cache")

    monkeypatch.setattr(doctor.hub, "find", absent)
    facts = {fact.name: fact.value for fact in doctor.examine("owner/name")}
    assert facts["remedy"].startswith("online, `mars5 say --model owner/name ")


def test_standard_output_may_be_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main(["styles"]) == 0
    with pytest.raises(SystemExit):
        main(["say", "hello", "-o", "-"])
    assert "send standard output to a file or a pipe" in capsys.readouterr().err
