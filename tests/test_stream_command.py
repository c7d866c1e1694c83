"""`mars5 stream`: text from a line or a pipe, spoken into a file or a pipe."""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from mars5.cli import main
from mars5.commands.texts import text_as_it_comes

ONE = "the hen then said hello to the other hen"
TWO = f"{ONE}. Then the other one said hello there."


def stdin_of(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")


def test_text_as_an_argument_and_from_standard_input(
    tiny_folder: Path, tmp_path: Path, capsysbinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["stream", ONE, "--model", str(tiny_folder), "--ref", str(tmp_path / "r.wav")]
    line += ["--seed", "3", "--steps", "2", "--set", "generate_max_len_override=150"]
    noise = np.random.default_rng(1).normal(0, 0.1, 20_000)
    sf.write(tmp_path / "r.wav", noise, 24_000)
    out = tmp_path / "out.wav"
    assert main([*line, "-o", str(out)]) == 0
    assert b"the first sound after" in capsysbinary.readouterr().err
    samples, rate = sf.read(out, dtype="int16")
    assert rate == 24_000

    assert main([*line, "--quiet", "-o", "-", "--raw"]) == 0
    raw = capsysbinary.readouterr().out
    assert raw == samples.astype("<i2").tobytes()

    monkeypatch.setattr("sys.stdin", stdin_of(ONE))
    line[1] = "-"
    assert main([*line, "--quiet", "-o", "-"]) == 0
    wav = capsysbinary.readouterr().out
    assert wav[:4] == b"RIFF"
    assert wav[44:] == raw


def test_standard_input_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line has to end, and letters and line ends may be cut anywhere."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", 0) as pipe, os.fdopen(reader, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        parts = text_as_it_comes("-")
        assert not isinstance(parts, str)
        for sent, given in ((b"A caf\xc3", "A caf"), (b"\xa9\r", "é"), (b"\nhere", "\nhere")):
            pipe.write(sent)
            assert next(parts) == given  # with the pipe still open
        pipe.close()
        assert list(parts) == [""]


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe cannot be waited for")
def test_it_speaks_before_the_line_ends(tiny_folder: Path, tmp_path: Path) -> None:
    sf.write(tmp_path / "r.wav", np.random.default_rng(1).normal(0, 0.1, 20_000), 24_000)
    line = [sys.executable, "-m", "mars5", "stream", "-", "--model", str(tiny_folder), "--ref"]
    line += [str(tmp_path / "r.wav"), "--steps", "2", "-o", "-", "--raw", "--quiet"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{TWO} And then".encode())
            process.stdin.flush()
            assert select.select([process.stdout], [], [], 60)[0], "it waits for the line's end"
            process.stdin.write(b" there was more.")
            process.stdin.close()
            assert process.stdout.read()
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_it_tells_of_standard_input_that_is_no_text(
    tiny_folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sf.write(tmp_path / "r.wav", np.random.default_rng(1).normal(0, 0.1, 20_000), 24_000)
    line = ["stream", "-", "--model", str(tiny_folder), "--ref", str(tmp_path / "r.wav")]
    for data in (b"caf\xe9 au lait", b"caf\xc3"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
        assert main([*line, "-o", str(tmp_path / "out.wav")]) == 1
        assert "standard input is not utf-8 text: " in capsys.readouterr().err


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
@pytest.mark.parametrize("text", ["", " \n\n"])
def test_no_text_leaves_the_file_alone(
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    quiet: list[str],
) -> None:
    out = tmp_path / "out.wav"
    out.write_bytes(b"of an earlier run")
    sf.write(tmp_path / "r.wav", np.random.default_rng(1).normal(0, 0.1, 20_000), 24_000)
    monkeypatch.setattr("sys.stdin", stdin_of(text))
    line = ["stream", "-", "--model", str(tiny_folder), "--ref", str(tmp_path / "r.wav")]
    assert main([*line, "--steps", "2", "-o", str(out), *quiet]) == 1
    assert "nothing to say" in capsys.readouterr().err
    assert out.read_bytes() == b"of an earlier run"
    assert {path.name for path in tmp_path.iterdir()} == {"out.wav", "r.wav"}


@pytest.mark.parametrize("more", [[], ["--raw", "-o", "x.wav"], ["--raw", "--play"]])
def test_refused_lines(more: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(["stream", "hello", *more])
