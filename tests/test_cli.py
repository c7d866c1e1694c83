"""The command line, over a tiny random model: what it writes, says and returns."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import tiny_config, write_tiny_model

import mars5
from mars5 import Voice, __version__, hub
from mars5.audio import write_audio
from mars5.cli import main
from mars5.commands import doctor
from mars5.commands.options import AUDIO_SUFFIXES
from mars5.engine import Engine
from mars5.tts import Mars5TTS

TRANSCRIPT = "A short reference."
ROOT = Path(__file__).parents[1]  # subprocesses start here, to find the package uninstalled


@pytest.fixture(scope="module")
def model(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model, with a voice of its own."""
    folder = tmp_path_factory.mktemp("model")
    for file in tiny_folder.iterdir():
        (folder / file.name).symlink_to(file)
    recording = folder / "own.wav"
    _record(recording)
    voice = folder / hub.VOICE_FILE
    arguments = ["--text", TRANSCRIPT, "-o", str(voice), "--model", str(folder)]
    assert main(["--quiet", "voice", "make", str(recording), *arguments]) == 0
    return str(folder)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("audio") / "reference.wav"
    _record(path)
    return str(path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.glob("**/*tmp")), "a half-written file was left"


def _record(path: Path) -> None:
    t = np.arange(24_000) / 24_000
    sf.write(path, 0.3 * np.sin(2 * np.pi * 140 * t) ** 5, 24_000)


def _error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one error line on standard error, which must be free of a traceback."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("mars5: error: ")]
    assert len(lines) == 1
    assert said.splitlines()[-1] == lines[0]
    return lines[0]


# the whole line


@pytest.mark.parametrize("name", mars5.__all__)
def test_public_names_are_found(name: str) -> None:
    assert getattr(mars5, name) is not None


def test_other_names_are_not_found() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Mars6TTS'"):
        mars5.Mars6TTS  # noqa: B018


def test_python_m_runs_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mars5", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == f"mars5 {__version__}\n"


def test_help_loads_no_torch_and_survives_a_closed_pipe() -> None:
    program = (
        "import sys; from mars5.cli import main\n"
        "try: code = main(['--help'])\n"
        "except SystemExit as end: code = end.code\n"
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    # unbuffered, argparse meets the closed pipe itself, and ignores it
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=broken,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=buffered,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_help_documents_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["say", "--help"])
    text = capsys.readouterr().out
    assert [int(n) for n in re.findall(r"^  (\d+) ", text, re.M)] == [0, 1, 2, 3, 130, 141]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "sing la",
        "say",
        "say hello --ref a.wav --voice b.safetensors",
        "say hello --ref-text words",
        "say hello --voice b.safetensors --ref-text words",
        "say hello --set temperature",
        "say hello --set =1",
        "say hello --seed many",
        "say hello --seed -5",
        f"edit a.wav --transcript a --new b --seed {2**63}",
        "stream hello -o a.wav --seed -5",
        "batch lines.txt -o out --batch-size 0",
        "batch lines.txt -o out --batch-size 1025",
        "say hello --temp 1",
        "voice",
        "voice make a.wav",
        "voice make a.wav -o b --note consent",
    ],
)
def test_usage_errors_exit_with_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    assert "error: " in capsys.readouterr().err


# say


def test_say_writes_speech_and_a_summary(
    model: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", "Hello there.", "--model", model]) == 0
    out, said = capsys.readouterr()
    audio, rate = sf.read(here / "speech.wav")
    assert rate == 24_000
    assert out == ""
    summary = re.fullmatch(
        r"mars5: speech.wav: (\d+\.\d\d) s of speech in \d+\.\d\d s "
        r"\(real-time factor \d+\.\d\d\), seed \d+(, cut off at the length limit)?",
        said.splitlines()[-1],
    )
    assert summary, said
    assert float(summary[1]) == pytest.approx(len(audio) / rate, abs=0.006)


def test_reported_seed_repeats_the_file(
    model: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say = ["say", "Hello there.", "--model", model, "-o"]
    main([*say, "first.wav"])
    seed = re.search(r"seed (\d+)", capsys.readouterr().err)
    assert seed
    main([*say, "again.wav", "--seed", seed[1]])
    main([*say, "other.wav", "--seed", str(int(seed[1]) + 1)])
    first, again, other = ((here / f"{n}.wav").read_bytes() for n in ("first", "again", "other"))
    assert first == again
    assert first != other


def test_speech_cut_off_is_said(model: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    never_ends = ["--set", "eos_penalty_factor=100", "--set", "eos_penalty_decay=3"]
    limit = ["--set", "generate_max_len_override=100", "--shallow", "--seed", "1"]
    assert main(["say", "Hello there.", "--model", model, *never_ends, *limit]) == 0
    warning, summary = capsys.readouterr().err.splitlines()
    assert warning.startswith("mars5: warning: generation reached its limit of 100 ids")
    assert summary.endswith("cut off at the length limit")


def test_quiet_says_nothing(model: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["say", "Hi there.", "--model", model, "--seed", "3", "--steps", "1"]
    assert main([*line, "--quiet", "-o", "a.wav"]) == 0
    assert main(["--quiet", *line, "-o", "b.wav"]) == 0
    out, said = capsys.readouterr()
    assert out == ""
    assert all(warned.startswith("mars5: warning: ") for warned in said.splitlines())
    assert (here / "a.wav").read_bytes() == (here / "b.wav").read_bytes()


@pytest.mark.parametrize(("terminal", "quiet"), [(True, False), (True, True), (False, False)])
def test_progress_bars_on_a_terminal_only(
    terminal: bool,
    quiet: bool,
    model: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert main(["say", "Hi there.", "--model", model, *["--quiet"] * quiet]) == 0
    assert ("coarse codes" in capsys.readouterr().err) == (terminal and not quiet)


def test_standard_input_and_output(
    model: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    line = ["--model", model, "--seed", "5", "-o"]
    assert main(["say", "Hello, wörld.", *line, "file.wav"]) == 0
    capsysbinary.readouterr()
    monkeypatch.setattr("sys.stdin", _stdin("Hello, wörld.\n".encode()))
    assert main(["say", "-", *line, "-"]) == 0
    out = capsysbinary.readouterr().out
    assert out == (here / "file.wav").read_bytes()
    with wave.open(io.BytesIO(out)) as file:
        assert file.getframerate() == 24_000


def _stdin(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), "utf-8")


def test_ref_clones_deep_with_its_transcript_and_shallow_without(
    model: str, recording: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths = []
    generate = Mars5TTS.generate

    def spy(self, text, ref, transcript, cfg, **rest):  # type: ignore[no-untyped-def]
        depths.append(cfg.deep_clone)
        return generate(self, text, ref, transcript, cfg, **rest)

    monkeypatch.setattr(Mars5TTS, "generate", spy)
    say = ["say", "Hello there.", "--model", model, "--seed", "1"]
    for more in (
        ["--ref", recording],
        ["--ref", recording, "--ref-text", TRANSCRIPT],
        ["--ref", recording, "--ref-text", TRANSCRIPT, "--shallow"],
        [],
        ["--shallow"],
        ["--shallow", "--set", "deep_clone=true"],
    ):
        assert main([*say, *more]) == 0
    assert depths == [False, True, False, True, False, True]


def test_settings_reach_the_model_over_its_own(
    model: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    generate = Mars5TTS.generate

    def spy(self, text, ref, transcript, cfg, **rest):  # type: ignore[no-untyped-def]
        seen.append(cfg)
        return generate(self, text, ref, transcript, cfg, **rest)

    monkeypatch.setattr(Mars5TTS, "generate", spy)
    flags = "--temperature 0.5 --top-k 7 --top-p 0.6 --steps 3 --guidance 1 --set trim_db=50"
    later = "--set timesteps=2 --set use_kv_cache=False"
    assert main(["say", "Hello.", "--model", model, *flags.split(), *later.split()]) == 0
    (cfg,) = seen
    assert (cfg.temperature, cfg.top_k, cfg.top_p, cfg.nar_guidance_w) == (0.5, 7, 0.6, 1)
    assert (cfg.trim_db, cfg.timesteps, cfg.use_kv_cache) == (50, 2, False)
    assert (cfg.generate_max_len_override, cfg.freq_penalty) == (120, 0.0)  # the checkpoint's


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_every_format_offered_can_be_written(suffix: str, here: Path) -> None:
    write_audio(f"a{suffix}", torch.zeros(2400))
    assert sf.info(f"a{suffix}").samplerate == 24_000


# what fails, in one line


FAILURES = {
    "empty": (["say", ""], "nothing to say"),
    "blanks": (["say", " \n "], "nothing to say"),
    "punctuation": (["say", "?!..."], "nothing to say"),
    "emoji": (["say", "\N{GRINNING FACE}"], "nothing to say"),
    "long": (["say", "a b" * 33_000], "99000 characters, at most 5000"),
    "unbroken": (["say", "a" * 100_000], "100000 characters, at most 5000"),
    "control": (["say", "bell\x07"], "U+0007 at position 4"),
    "surrogate": (["say", "lone \udce9"], "U+DCE9 at position 5"),
    "too long": (["say", "z" * 500], "the model has room for 120"),
    "deep": (["say", "x", "--ref", "REF", "--set", "deep_clone=true"], "transcript"),
    "empty transcript": (["say", "x", "--ref", "REF", "--ref-text", ""], "ref_transcript ''"),
    "unknown": (["say", "x", "--set", "temprature=1"], "did you mean 'temperature'"),
    "range": (["say", "x", "--temperature", "99"], "from 0.0 to 10.0, got 99"),
    "kind": (["say", "x", "--set", "top_k=2.5"], "top_k must be a whole number"),
    "word": (["say", "x", "--top-p", "most"], "top_p must be a number"),
    "truth": (["say", "x", "--set", "deep_clone=1"], "deep_clone must be True or False"),
    "device": (["say", "x", "--device", "abacus"], "device must be one of cpu"),
    "absent": (["say", "x", "--device", "cuda:77"], "'cuda:77' asked for"),
    "no reference": (["say", "x", "--ref", "gone.wav"], "gone.wav"),
    "no voice": (["say", "x", "--voice", "gone.safetensors"], "no voice file at gone"),
    "no folder": (["say", "x", "-o", "gone/a.wav"], "there is no folder gone"),
    "not audio": (["say", "x", "-o", "a.txt"], "must end in one of .wav"),
    "folder": (["say", "x", "-o", "."], "must end in one of .wav"),
    "voice of nothing": (["voice", "make", "gone.wav", "-o", "v"], "gone.wav"),
    "voice nowhere": (["voice", "make", "REF", "-o", "gone/v"], "there is no folder gone"),
    "voice in a file": (["voice", "make", "REF", "-o", "REF/v"], "there is no folder"),
    "voice text": (["voice", "make", "REF", "-o", "v", "--text", "?"], "nothing to say"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_is_one_line_and_exit_1(
    name: str, model: str, recording: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, said = FAILURES[name]
    line = [word.replace("REF", recording) for word in line]
    assert main([*line, "--model", model]) == 1
    assert said in _error_line(capsys)
    assert not list(here.iterdir())


def test_missing_model_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["say", "x", "--model", "no such place"]) == 1
    assert "'no such place' is neither 'nano', nor a folder" in _error_line(capsys)


def test_model_without_a_voice_asks_for_one(
    tiny_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", "x", "--model", str(tiny_folder)]) == 1
    assert "no voice of its own" in _error_line(capsys)


def test_undecodable_standard_input(
    model: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", _stdin(b"caf\xe9"))
    assert main(["say", "-", "--model", model]) == 1
    assert "standard input is not utf-8 text" in _error_line(capsys)


def test_debug_shows_the_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["say", "", "--debug"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("mars5: error: ")


def test_interrupt_exits_with_130_and_leaves_no_file(
    model: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "rendered", interrupted)
    assert main(["say", "Hello.", "--model", model]) == 130
    assert capsys.readouterr().err.endswith("mars5: interrupted\n")
    assert not list(here.iterdir())


def test_reader_of_standard_output_gone(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        monkeypatch.setattr("sys.stdout", broken)
        assert main(["say", "Hello.", "--model", model, "-o", "-"]) == 141
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_standard_output_full(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["say", "Hello.", "--model", model, "-o", "-"]) == 1
    assert "cannot write to standard output: No space" in _error_line(capsys)


def test_no_audio_bytes_to_a_terminal(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(SystemExit, match="2"):
        main(["say", "Hello.", "--model", model, "-o", "-"])
    assert capsys.readouterr().out == ""


def test_logging_is_left_as_it_was(here: Path) -> None:
    before = list(logging.getLogger("mars5").handlers)
    main(["say", ""])
    assert logging.getLogger("mars5").handlers == before


# voice


def test_voice_round_trip(
    model: str, recording: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = ["voice", "make", recording, "-o", "my.voice.safetensors", "--text", TRANSCRIPT]
    notes = ["--note", "source=a buzz", "--note", "consent=not=needed"]
    assert main([*make, *notes, "--model", model]) == 0
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith("mars5: my.voice.safetensors: ")

    assert main(["voice", "show", "my.voice.safetensors"]) == 0
    shown = capsys.readouterr().out.splitlines()
    voice = Voice.load("my.voice.safetensors")
    facts = [line.split(maxsplit=1) for line in shown]
    assert ["frames", str(len(voice.codes))] in facts
    assert ["seconds", f"{len(voice.codes) / 37.5:.2f}"] in facts
    assert ["transcript", repr(TRANSCRIPT)] in facts
    assert ["codec", voice.codec] in facts
    assert ["checkpoint", voice.checkpoint] in facts
    assert ["note", "source=a buzz"] in facts
    assert ["note", "consent=not=needed"] in facts

    say = ["say", "Hello there.", "--model", model, "--seed", "2", "-o"]
    assert main([*say, "voice.wav", "--voice", "my.voice.safetensors"]) == 0
    assert main([*say, "ref.wav", "--ref", recording, "--ref-text", TRANSCRIPT]) == 0
    assert (here / "voice.wav").read_bytes() == (here / "ref.wav").read_bytes()


def test_voice_without_text_is_shallow(
    model: str, recording: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["voice", "make", recording, "-o", "v", "--model", model]) == 0
    capsys.readouterr()
    assert main(["voice", "show", "v"]) == 0
    assert "shallow clones only" in capsys.readouterr().out
    assert main(["say", "Hello.", "--voice", "v", "--model", model]) == 0


def test_voice_show_refuses_what_is_no_voice(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("v").write_bytes(b"no voice at all")
    assert main(["voice", "show", "v"]) == 1
    assert "v is no intact voice file" in _error_line(capsys)


def test_forged_speaker_vector_is_refused(
    model: str, recording: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["voice", "make", recording, "-o", "v", "--model", model]) == 0
    voice = Voice.load("v")
    for vector, said in (
        (torch.zeros(7), "speaker vectors of (7, 32), this model needs (32, 32)"),
        (torch.full((32,), torch.nan), "v: ar_speaker is no vector of finite"),
    ):
        replace(voice, ar_speaker=vector).save("v")
        capsys.readouterr()
        assert main(["say", "Hello.", "--voice", "v", "--model", model]) == 1
        assert said in _error_line(capsys)


# doctor


def test_doctor_of_a_sound_model(
    model: str, tiny: Mars5TTS, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--model", model, "--device", "cpu"]) == 0
    report = capsys.readouterr().out
    assert f"{__version__} in {Path(mars5.__file__).parent}\n" in report
    for name in ("python", *doctor.PACKAGES, "cpu", "memory"):
        assert re.search(rf"^{name} +\S", report, re.M), name
    assert re.search(rf"^torch +{re.escape(metadata.version('torch'))}$", report, re.M)
    assert f"AR {sum(p.numel() for p in tiny.ar.parameters()):,}" in report
    assert re.search("^licence +not stated", report, re.M)
    assert "tiny random test model" in report
    assert len(re.findall(r"^file .* MB, sha256 [0-9a-f]{16}$", report, re.M)) == 4
    assert "the model can be loaded, on cpu" in report
    assert re.search(r"^speed +AR \d+ frames/s, 37.5 a second$", report, re.M)
    assert re.search(r"^real time .* flash [\d.e+-]+, pro .*, instruct .*, nano ", report, re.M)
    assert re.search(r"^profile +\w+ is recommended: ", report, re.M)


@pytest.mark.parametrize("arguments", [["--model", "no such place"], ["--device", "abacus"]])
def test_doctor_of_what_cannot_be_loaded(
    arguments: list[str], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--model", model, *arguments]) == 1
    out, said = capsys.readouterr()
    assert said == ""
    assert re.search(r"^problem .* cannot be loaded: ", out, re.M)
    assert "verdict" not in out


def test_doctor_of_a_damaged_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("ar", "nar"):
        (tmp_path / f"mars5_{kind}.safetensors").write_bytes(b"{}")
    (tmp_path / hub.CODEC_FILE).write_bytes(b"{}")
    assert main(["doctor", "--model", str(tmp_path)]) == 1
    assert "mars5_ar.safetensors" in capsys.readouterr().out


def test_doctor_downloads_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_tiny_model(tmp_path, replace(tiny_config(), codec={"name": "encodec"}))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("download"))
    assert main(["doctor", "--model", str(tmp_path)]) == 1
    report = capsys.readouterr().out
    assert hub.ENCODEC_URL in report
    assert "are not at" in report


def test_doctor_reports_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "mars5.tts", None)
    facts = list(doctor.examine("nano"))
    values = {fact.name: fact.value for fact in facts}
    assert values["no-such-package"] == "not installed: run `pip install no-such-package`"
    assert "torch cannot be imported" in values["devices"]
    assert any(fact.fatal for fact in facts)
