"""`mars5 batch`: what it writes, what it leaves alone, what it reports."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mars5.cli import main
from mars5.commands import batch
from mars5.engine import Task
from mars5.profiles import PUBLISHED
from mars5.styles import SHIPPED

QUICK = ["--top-k", "0", "--set", "generate_max_len_override=60", "--steps", "2", "--shallow"]
STYLE = str(Path(__file__).parent.parent / "examples" / "reader.wav")
BANK = str(SHIPPED)


@pytest.fixture
def lines(tmp_path: Path, tiny_folder: Path, speechlike: object) -> list[str]:
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "ref.wav", np.asarray(speechlike), 24_000)
    (tmp_path / "lines.txt").write_text("he\n\nthe hen\n  hello \n", encoding="utf-8")
    return [
        "batch", str(tmp_path / "lines.txt"), "-o", str(tmp_path / "out"),
        "--model", str(tiny_folder), "--ref", str(tmp_path / "ref.wav"), "--device", "cpu", *QUICK,
    ]  # fmt: skip


def entries(path: Path) -> dict[int, dict[str, object]]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {entry["line"]: entry for entry in found}


def test_files_and_manifest(
    lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(lines) == 0
    out = tmp_path / "out"
    assert sorted(p.name for p in out.glob("*.wav")) == ["00001.wav", "00003.wav", "00004.wav"]
    found = entries(out / "manifest.jsonl")
    assert {n: entry["text"] for n, entry in found.items()} == {1: "he", 3: "the hen", 4: "hello"}
    assert {entry["seed"] for entry in found.values()} == {1, 3, 4}
    assert "3 spoken, 0 were there, 0 failed" in capsys.readouterr().err


def test_a_second_run_makes_only_what_is_missing_or_changed(
    lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(lines) == 0
    out = tmp_path / "out"
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    (out / "00003.wav").unlink()
    (tmp_path / "lines.txt").write_text("he the hen\n\nthe hen\nhello\n", encoding="utf-8")
    with (out / "manifest.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"line": 4, "te')  # as a killed run leaves it
    capsys.readouterr()
    assert main(lines) == 0
    assert "2 spoken, 1 were there" in capsys.readouterr().err
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    assert {name for name in before if before[name] != after[name]} == {"00001.wav", "00003.wav"}
    assert main(lines) == 0
    assert "0 spoken, 3 were there" in capsys.readouterr().err


def test_a_manifest_cut_off_inside_a_letter(
    lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(lines) == 0
    with (tmp_path / "out" / "manifest.jsonl").open("ab") as file:
        file.write('{"line": 4, "text": "é'.encode()[:-1])
    capsys.readouterr()
    assert main(lines) == 0
    assert "0 spoken, 3 were there" in capsys.readouterr().err


@pytest.mark.parametrize("separator", ["\u2028", "\u2029"])
def test_a_text_with_a_separator_of_lines_is_one_entry(
    lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], separator: str
) -> None:
    (tmp_path / "lines.txt").write_text(f"he{separator}hen\n", encoding="utf-8")
    for expected in ("1 spoken, 0 were there", "0 spoken, 1 were there"):
        assert main(lines) == 0
        assert expected in capsys.readouterr().err


def test_another_voice_lexicon_or_setting_makes_all_lines_again(
    lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.wav").write_bytes((tmp_path / "ref.wav").read_bytes())
    (tmp_path / "said.txt").write_text("hen = the\n", encoding="utf-8")
    other = [word.replace("ref.wav", "other.wav") for word in lines]
    said = [*lines, "--lexicon", str(tmp_path / "said.txt")]
    for line in (lines, other, said, [*said, "--set", "top_p=0.9"]):
        for expected in ("3 spoken, 0 were there", "0 spoken, 3 were there"):
            assert main(line) == 0
            assert expected in capsys.readouterr().err
    how = entries(tmp_path / "out" / "manifest.jsonl")[1]["how"]
    assert isinstance(how, dict)
    assert how["lexicon"] == hashlib.sha256(b'{"hen": "the"}').hexdigest()[:16]
    assert how["ref"] == str(tmp_path / "ref.wav")


DIRECTIONS: list[tuple[list[str], dict[str, object]]] = [
    (["--quantize", "int8"], {"quantize": "int8"}),
    (["--dtype", "bfloat16"], {"dtype": "bfloat16"}),
    (["--no-normalise"], {"normalise": False}),
    (["--profile", "flash"], {"profile": "flash"}),
    (["--profile", "auto"], {"profile": "nano"}),
    (["--instructions", "warm"], {"instructions": "warm"}),
    (["--style", STYLE, "--style-text", "A clip."], {"style": STYLE, "style_text": "A clip."}),
    (["--style", STYLE, "--style-strength", "0.3"], {"style": STYLE, "style_strength": 0.3}),
    (["--instructions", "warm", "--styles", BANK], {"instructions": "warm", "styles": [BANK]}),
]


@pytest.mark.parametrize(("options", "noted"), DIRECTIONS, ids=lambda given: " ".join(given))
def test_another_way_of_speaking_makes_all_lines_again(
    lines: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    noted: dict[str, object],
) -> None:
    assert main(lines) == 0
    plain = entries(tmp_path / "out" / "manifest.jsonl")[1]["how"]
    assert isinstance(plain, dict)
    capsys.readouterr()
    for expected in ("3 spoken, 0 were there", "0 spoken, 3 were there"):
        assert main([*lines, *options]) == 0
        assert expected in capsys.readouterr().err
    assert entries(tmp_path / "out" / "manifest.jsonl")[1]["how"] == {**plain, **noted}


def test_a_line_is_what_say_makes_of_it(lines: list[str], tmp_path: Path) -> None:
    directions = ["--instructions", "warm", "--profile", "instruct", "--no-normalise"]
    (tmp_path / "lines.txt").write_text("the hen 5", encoding="utf-8")
    assert main([*lines, *directions, "--seed", "2"]) == 0
    out = str(tmp_path / "said.wav")
    say = ["say", "the hen 5", "-o", out, *lines[4:]]
    assert main([*say, *directions, "--seed", "3"]) == 0
    made = (tmp_path / "out" / "00001.wav").read_bytes()
    assert made == Path(out).read_bytes()
    assert main([*say, "--seed", "3"]) == 0
    assert made != Path(out).read_bytes()


def test_the_voice_is_prepared_once(lines: list[str], tasks: list[Task]) -> None:
    assert main([*lines, "--style", STYLE, "--style-strength", "0.3", "--steps", "1"]) == 0
    assert len({id(task.voice) for task in tasks}) == 1
    assert {(task.voice.style_strength, task.cfg.timesteps) for task in tasks} == {(0.3, 1)}


@pytest.mark.parametrize(("longest", "chosen"), [("Hello.", "flash"), ("Hello. " * 40, "pro")])
def test_auto_is_one_choice_for_all_shares(
    lines: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    longest: str,
    chosen: str,
) -> None:
    """By the longest of all lines, and noted with its checkpoint."""
    monkeypatch.setattr(batch, "resolve_device", lambda _: torch.device("cuda"))
    (tmp_path / "lines.txt").write_text(f"Hello.\n{longest}\n", encoding="utf-8")
    seen = []

    def speak(args: object, wishes: object, text: str, wanted: list[Any], _: object) -> int:
        seen.append((text, wanted))
        return 0

    monkeypatch.setattr(batch, "_speak", speak)
    model = lines.index("--model")
    unnamed = lines[:model] + lines[model + 2 :]
    assert main([*unnamed, "--profile", "auto", "--shard", "1/2"]) == 0
    [(text, [wanted])] = seen
    assert (text, wanted["text"]) == (longest.strip(), "Hello.")
    assert (wanted["how"]["profile"], wanted["how"]["model"]) == (chosen, PUBLISHED)


def test_a_voice_that_cannot_be_prepared_is_one_error(
    lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ref.wav").write_bytes(b"RIFF")
    assert main(lines) == 1
    said = capsys.readouterr().err
    assert said.startswith("mars5: error: ")
    assert said.count("error") == 1


@pytest.mark.parametrize("options", [["--style-text", "A."], ["--ref-text", "A.", "--voice", "a"]])
def test_lines_that_contradict_themselves(lines: list[str], options: list[str]) -> None:
    ref = lines.index("--ref")
    with pytest.raises(SystemExit) as caught:
        main([*lines[:ref], *lines[ref + 2 :], *options])
    assert caught.value.code == 2


@pytest.mark.parametrize("older", ["manifest.jsonl", "manifest-1of2.jsonl"])
def test_an_entry_stands_only_for_the_audio_it_was_written_for(
    lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], older: str
) -> None:
    """Also if its manifest is read last."""
    out = tmp_path / "out"
    assert main(lines) == 0
    again = [*lines, "--seed", "5"]
    old, made = (out / "manifest.jsonl").read_bytes(), (out / "00001.wav").read_bytes()
    (out / "manifest.jsonl").unlink()
    (out / older).write_bytes(old)
    assert main([*again, "--shard", "1/2"]) == 0  # lines 1 and 3
    assert (out / "00001.wav").read_bytes() != made
    capsys.readouterr()
    assert main([*again, "--shard", "1/2"]) == 0
    assert "0 spoken, 2 were there" in capsys.readouterr().err
    assert main(lines) == 0
    assert "2 spoken, 1 were there" in capsys.readouterr().err
    assert (out / "00001.wav").read_bytes() == made


def test_audio_whose_entry_was_not_written_is_made_again(
    lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a run with another seed leaves it that was killed after its first file."""
    out = tmp_path / "out"
    assert main(lines) == 0
    (out / "00001.wav").write_bytes((out / "00003.wav").read_bytes())
    (out / "00004.wav").unlink()
    capsys.readouterr()
    assert main(lines) == 0
    assert "2 spoken, 1 were there" in capsys.readouterr().err
    assert (out / "00001.wav").read_bytes() != (out / "00003.wav").read_bytes()


def test_shards_are_the_whole(lines: list[str], tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        assert main([*lines, "--shard", shard]) == 0
    out = tmp_path / "out"
    shares = [set(entries(out / f"manifest-{i}of2.jsonl")) for i in (1, 2)]
    assert shares == [{1, 3}, {4}]
    sharded = {path.name: path.read_bytes() for path in out.glob("*.wav")}
    whole = [str(tmp_path / "whole") if word == str(out) else word for word in lines]
    assert main(whole) == 0
    alone = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.wav")}
    assert sharded.keys() == alone.keys()


def test_a_line_that_fails_is_reported_and_tried_again(
    lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.txt").write_text("he\n" + "x" * 300 + "\n", encoding="utf-8")
    for _ in range(2):
        assert main(lines) == 3
        shown = capsys.readouterr().err
        assert "line 2: error: text and reference take" in shown
    assert "error" in entries(tmp_path / "out" / "manifest.jsonl")[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tmp: (tmp / "lines.txt").unlink(), "cannot read"),
        (lambda tmp: (tmp / "lines.txt").write_bytes(b"\xff\xfe\x00"), "cannot read"),
        (lambda tmp: (tmp / "lines.txt").write_text("\n \n"), "holds no text"),
        (lambda tmp: (tmp / "out").write_text("a file"), "cannot use the folder"),
    ],
)
def test_refused(lines, tmp_path, capsys, change, message) -> None:  # type: ignore[no-untyped-def]
    change(tmp_path)
    assert main(lines) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_shards_that_are_none(lines: list[str], shard: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*lines, f"--shard={shard}"])
    assert caught.value.code == 2
