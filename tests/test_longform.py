"""Texts of any length: pieces, pauses, loudness, and a chapter that survives being killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from mars5 import InferenceConfig, Mars5TTS
from mars5.ar.steps import EagerSteps
from mars5.audio_writer import audio_file
from mars5.cli import main
from mars5.engine import Engine
from mars5.errors import AudioInputError, ConfigError, GenerationError, OutOfMemoryError, TextError
from mars5.longform.chapter import Chapter, given_text
from mars5.longform.levels import MOST_DB, levelled, speech_level
from mars5.seeds import Seeds
from mars5.voice import Voice

CFG = InferenceConfig(
    timesteps=2, generate_max_len_override=75, top_k=0, top_p=0.9, deep_clone=False
)
FIRST = "the hen then said hello to us."
TEXT = f"{FIRST} Then the other hen said hello.\n\nAnd then the last one said so too."


@pytest.fixture(scope="module")
def voice(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    return tiny.voice(speechlike, "he said")


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pieces that are spoken, as they come."""
    texts: list[str] = []
    utterance = Engine.utterance

    def noted(self: Engine, text: str, *args: Any, **rest: Any) -> Any:
        texts.append(text)
        return utterance(self, text, *args, **rest)

    monkeypatch.setattr(Engine, "utterance", noted)
    return texts


# ---------------------------------------------------------------- one call


def test_a_text_of_pieces_is_its_pieces_joined(tiny: Mars5TTS, voice: Voice) -> None:
    speech = tiny.generate(TEXT, voice, cfg=CFG, seed=5)
    seeds = Seeds(5)
    alone = [
        tiny.generate(piece.text, voice, cfg=CFG, seed=seeds.number(place))
        for place, piece in enumerate(speech.pieces)
    ]
    assert len(alone) == 3
    assert torch.equal(speech.ar_codes, torch.cat([one.ar_codes for one in alone]))
    assert torch.equal(speech.codes, torch.cat([one.codes for one in alone]))
    at = 0
    for piece, one, pause in zip(speech.pieces, alone, (9600, 19_200, 0), strict=True):
        assert (piece.start, piece.stop) == (at, at + len(one.audio))
        assert not speech.audio[piece.stop : piece.stop + pause].any()
        ours = speech.audio[piece.start : piece.stop][500:-500]
        gain = float(ours.norm() / one.audio[500:-500].norm())
        torch.testing.assert_close(ours, gain * one.audio[500:-500], rtol=0, atol=1e-5)
        assert abs(20 * np.log10(gain)) < MOST_DB + 0.01
        at = piece.stop + pause
    assert at == len(speech.audio)
    reasons = {one.finish_reason for one in alone}
    assert speech.finish_reason == ("length" if "length" in reasons else "stop")


def test_a_single_piece_is_untouched(tiny: Mars5TTS, voice: Voice) -> None:
    speech = tiny.generate(FIRST, voice, cfg=CFG, seed=5)
    generator = torch.Generator().manual_seed(5)
    alone = tiny.engine.utterance(FIRST, voice, CFG, generator)
    assert torch.equal(speech.audio, alone.audio)
    assert [piece.text for piece in speech.pieces] == [FIRST]
    assert speech.pieces[0].stop == len(speech.audio)


def test_text_is_written_out_before_it_is_spoken(
    tiny: Mars5TTS, voice: Voice, spoken: list[str]
) -> None:
    options: list[dict[str, Any]] = [{}, {"normalise": False}, {"lexicon": {"hen": "rooster"}}]
    for more in options:
        tiny.tts("The hen paid $5.", voice, cfg=CFG, seed=1, **more)
    assert spoken == [
        "The hen paid five dollars.",
        "The hen paid $5.",
        "The rooster paid five dollars.",
    ]
    batch = tiny.tts_batch(["The hen paid $5."], voice, cfg=CFG, seeds=1, normalise=False)
    assert [piece.text for piece in batch[0].pieces] == ["The hen paid $5."]
    with pytest.raises(TextError, match="lexicon"):
        tiny.generate(FIRST, voice, cfg=CFG, lexicon={"": "x"})


def test_a_batch_of_texts_of_pieces(tiny: Mars5TTS, voice: Voice) -> None:
    texts = [FIRST, TEXT, "", f"{FIRST} [pause 1s]"]
    items = {item.index: item for item in tiny.tts_batch_iter(texts, voice, cfg=CFG, seeds=5)}
    assert sorted(items) == [0, 1, 2, 3]
    assert isinstance(items[2].error, TextError)
    for index in (0, 1, 3):
        alone = tiny.generate(texts[index], voice, cfg=CFG, seed=5 + index)
        found = items[index].speech
        assert found is not None
        assert torch.equal(found.ar_codes, alone.ar_codes)
        assert found.pieces == alone.pieces
        torch.testing.assert_close(found.audio, alone.audio, rtol=0, atol=1e-4)


# ---------------------------------------------------------------- loudness


def test_levels() -> None:
    tone = torch.sin(torch.arange(24_000) * 0.1)
    quiet = torch.cat([0.2 * tone, torch.zeros(24_000)])
    assert speech_level(0.5 * tone) == pytest.approx(-9.03, abs=0.05)
    assert speech_level(quiet) == pytest.approx(-17, abs=0.1)
    assert speech_level(levelled(0.2 * tone, -15)) == pytest.approx(-15, abs=0.05)
    assert speech_level(levelled(0.2 * tone, 0)) == pytest.approx(-13, abs=0.1)
    assert levelled(0.9 * tone, 0).abs().max() <= 0.991
    assert torch.equal(levelled(1.2 * tone, 10), 1.2 * tone)


# ---------------------------------------------------------------- narration


def test_narration_is_what_generate_gives_and_keeps_nothing(tiny: Mars5TTS, voice: Voice) -> None:
    whole = tiny.generate(TEXT, voice, cfg=CFG, seed=5)
    waves, alive = [], []
    for passage in tiny.narrate(iter([TEXT[:20], TEXT[20:]]), voice, cfg=CFG, seed=5):
        waves.append(passage.audio.clone())
        alive.append(weakref.ref(passage.audio))
        assert sum(ref() is not None for ref in alive) <= 2
    assert torch.equal(torch.cat(waves), whole.audio)


def test_a_piece_that_gives_nothing_is_tried_again(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    utterance, failures = Engine.utterance, [True, True, False]

    def failing(self: Engine, *args: Any) -> Any:
        if failures.pop(0) if failures else False:
            raise GenerationError("nothing")
        return utterance(self, *args)

    monkeypatch.setattr(Engine, "utterance", failing)
    assert len(list(tiny.narrate(TEXT, voice, cfg=CFG, seed=5))) == 3
    assert sum("trying another seed" in record.message for record in caplog.records) == 2
    failures += [True, True, True]
    with pytest.raises(GenerationError, match="piece 0 'the hen"):
        list(tiny.narrate(TEXT, voice, cfg=CFG, seed=5))


def test_out_of_memory_is_told(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    passages = tiny.narrate(TEXT, voice, cfg=CFG, seed=5)
    next(passages)
    monkeypatch.setattr(EagerSteps, "run", full)
    with pytest.raises(OutOfMemoryError, match="shorten the text"):
        next(passages)


# ---------------------------------------------------------------- chapters

ROOT = Path(__file__).parent.parent
# `mars5`, but the second piece never comes to an end.
STUCK = """
import sys, time
from mars5.cli import main
from mars5.engine import Engine

utterance, pieces = Engine.utterance, iter(range(2))

def stuck(*args, **rest):
    if next(pieces):
        time.sleep(600)
    return utterance(*args, **rest)

Engine.utterance = stuck
main(sys.argv[1:])
"""


def kill_at(monkeypatch: pytest.MonkeyPatch, piece: int, speak: Callable[[], object]) -> None:
    """Have `speak` interrupted when it comes to the piece number `piece`."""
    utterance, count = Engine.utterance, iter(range(100))

    def killed(self: Engine, *args: Any) -> Any:
        if next(count) == piece:
            raise KeyboardInterrupt
        return utterance(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "utterance", killed)
        with pytest.raises(KeyboardInterrupt):
            speak()


@pytest.mark.parametrize("piece", [1, 2])
def test_a_killed_chapter_goes_on(
    tiny: Mars5TTS, voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    wanted, path = tmp_path / "wanted.wav", tmp_path / "chapter.wav"
    chapter = tiny.speak_file(TEXT, wanted, voice, cfg=CFG, seed=5)
    assert (chapter.pieces, chapter.reused, chapter.seed) == (3, 0, 5)
    whole = tiny.generate(TEXT, voice, cfg=CFG, seed=5)
    np.testing.assert_allclose(sf.read(wanted)[0], whole.audio.numpy(), atol=2**-15)
    assert chapter.seconds == len(whole.audio) / 24_000

    kill_at(monkeypatch, piece, lambda: tiny.speak_file(TEXT, path, voice, cfg=CFG, seed=5))
    assert not path.exists()
    assert (tmp_path / "chapter.wav.part").is_dir()
    chapter = tiny.speak_file(TEXT, path, voice, cfg=CFG)  # the seed is known
    assert (chapter.reused, chapter.seed) == (piece, 5)
    assert path.read_bytes() == wanted.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["chapter.wav", "wanted.wav"]


def test_kill_9_loses_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    text, noise = tmp_path / "chapter.txt", np.random.default_rng(1).normal(0, 0.1, 20_000)
    text.write_text(TEXT, encoding="utf-8")
    sf.write(tmp_path / "r.wav", noise, 24_000)
    line = ["say", "-f", str(text), "--model", str(tiny_folder), "--ref", str(tmp_path / "r.wav")]
    line += ["--seed", "3", "--steps", "2", "--quiet", "-o"]
    wanted, path = tmp_path / "wanted.wav", tmp_path / "chapter.wav"
    assert main([*line, str(wanted)]) == 0

    first = tmp_path / "chapter.wav.part" / "000000.json"
    with subprocess.Popen([sys.executable, "-c", STUCK, *line, str(path)], cwd=ROOT) as process:
        try:
            while not first.exists() and process.poll() is None:
                time.sleep(0.01)
        finally:
            process.kill()  # SIGKILL: nothing is told, nothing can be tidied up
    assert process.returncode == -9
    assert first.exists()
    assert not path.exists()
    assert not first.with_name("000001.json").exists()
    kept = first.with_suffix(".npy").read_bytes()
    start = len(kept) - 2 * json.loads(first.read_text())["samples"]  # behind NumPy's header
    reused = np.frombuffer(kept[start:], "<i2")

    assert main([*line, str(path)]) == 0
    samples, _ = sf.read(path, dtype="int16")
    np.testing.assert_array_equal(samples, sf.read(wanted, dtype="int16")[0])
    np.testing.assert_array_equal(samples[: len(reused)], reused)
    assert not first.parent.exists()


def test_what_was_made_of_something_else_is_made_anew(
    tiny: Mars5TTS, voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chapter.flac"
    for change in ({"seed": 6}, {"text": TEXT[:-1] + "!"}, {"cfg": replace(CFG, top_p=0.8)}):
        kill_at(monkeypatch, 1, lambda: tiny.speak_file(TEXT, path, voice, cfg=CFG, seed=5))
        given: dict[str, Any] = {"text": TEXT, "cfg": CFG, "seed": 5, **change}
        chapter = tiny.speak_file(given.pop("text"), path, voice, **given)
        assert chapter.reused == 0


@pytest.mark.parametrize("changed", [0, 1])
def test_pieces_of_another_transcript_are_made_anew(
    tiny: Mars5TTS,
    voice: Voice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: int,
) -> None:
    """The NAR reads that of the voice, the AR that of its style."""
    path = tmp_path / "chapter.wav"
    long = replace(CFG, deep_clone=True, generate_max_len_override=400)

    def speak(*said: str) -> Chapter:
        parts = [replace(voice, transcript=words) for words in said]
        return tiny.speak_file(TEXT, path, parts[0].with_style(parts[1]), cfg=long, seed=5)

    given = ["he said", "the hen said"]
    for again, reused in ((given, 1), ([*given[:changed], "hello", *given[changed + 1 :]], 0)):
        kill_at(monkeypatch, 1, lambda: speak(*given))
        assert speak(*again).reused == reused


def test_pieces_of_rounded_weights_are_not_mixed_with_others(
    tiny: Mars5TTS,
    tiny_folder: Path,
    voice: Voice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "chapter.wav"
    rounded = Mars5TTS.from_pretrained(tiny_folder, device="cpu", quantize="int8")
    kill_at(monkeypatch, 1, lambda: rounded.speak_file(TEXT, path, voice, cfg=CFG, seed=5))
    assert tiny.speak_file(TEXT, path, voice, cfg=CFG, seed=5).reused == 0


@pytest.mark.parametrize("cfg", [CFG, replace(CFG, top_p=0.8)], ids=["same", "other"])
@pytest.mark.parametrize("deleted", range(7))  # of two files for each piece, and the journal's own
def test_a_chapter_killed_while_it_tidies_up(
    tiny: Mars5TTS,
    voice: Voice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cfg: InferenceConfig,
    deleted: int,
) -> None:
    path, unlink, rmtree, room = tmp_path / "chapter.wav", Path.unlink, shutil.rmtree, [deleted]

    def killed(file: Path) -> None:
        if file.suffix in (".json", ".npy"):
            if not room[0]:
                raise KeyboardInterrupt
            room[0] -= 1
        unlink(file)

    def journal_first(folder: Path) -> None:  # rmtree has no order of its own
        for file in sorted(folder.iterdir(), reverse=True):
            file.unlink()
        rmtree(folder)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        patch.setattr(shutil, "rmtree", journal_first)
        with pytest.raises(KeyboardInterrupt):
            tiny.speak_file(TEXT, path, voice, cfg=CFG, seed=5)
    assert path.exists()
    tiny.speak_file(TEXT, path, voice, cfg=cfg, seed=5)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_foreign_is_deleted(tiny: Mars5TTS, voice: Voice, tmp_path: Path) -> None:
    kept = tmp_path / "chapter.wav.part" / "diary.txt"
    kept.parent.mkdir()
    kept.write_text("dear diary")
    with pytest.raises(ConfigError, match="holds other things"):
        tiny.speak_file(FIRST, tmp_path / "chapter.wav", voice, cfg=CFG)
    assert kept.exists()


def test_a_string_that_names_a_file_draws_a_warning(
    tiny: Mars5TTS,
    voice: Voice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hello.txt").write_text("the hen")
    chapter = tiny.speak_file("hello.txt", "a.wav", voice, cfg=CFG, seed=5)
    assert chapter.spoken[0].text == "hello.txt"
    assert "the name of the file 'hello.txt': give Path('hello.txt')" in caplog.text
    caplog.clear()
    for text in (Path("hello.txt"), "the hen", "the hen " * 1000):
        assert given_text(text).startswith("the hen")
    assert not caplog.records


def test_bad_files(tiny: Mars5TTS, voice: Voice, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name in ("latin.txt", "none.txt", "a\0b"):
        with pytest.raises(TextError, match="cannot read"):
            tiny.speak_file(tmp_path / name, tmp_path / "x.wav", voice)
    for output in ("x.txt", "none/x.wav", "a\0.wav", ""):
        with pytest.raises(ConfigError):
            tiny.speak_file(FIRST, tmp_path / output if output else "", voice, cfg=CFG)
    with pytest.raises(ConfigError, match="seed"):
        tiny.speak_file(FIRST, tmp_path / "x.wav", voice, seed=-1)
    assert [file.name for file in tmp_path.iterdir()] == ["latin.txt"]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, suffix: str) -> None:
    path, tone = tmp_path / f"a{suffix}", 0.5 * torch.sin(torch.arange(30_000) * 0.05)
    with pytest.raises(AudioInputError), audio_file(path) as write:
        write(torch.cat([tone, tone / 0]))
    assert list(tmp_path.iterdir()) == []
    with audio_file(path) as write:
        write(tone)
        write(tone)
    samples, rate = sf.read(path)
    assert rate == 24_000
    assert samples.shape == (60_000,)
    assert abs(samples[:30_000] - tone.numpy()).max() < 0.1


def test_command(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, out = tmp_path / "chapter.txt", tmp_path / "chapter.wav"
    text.write_text(TEXT, encoding="utf-8")
    noise = np.random.default_rng(1).normal(0, 0.1, 20_000)
    sf.write(tmp_path / "r.wav", noise, 24_000)
    line = ["say", "-f", str(text), "-o", str(out), "--model", str(tiny_folder), "--seed", "3"]
    line += ["--ref", str(tmp_path / "r.wav"), "--steps", "2"]
    assert main(line) == 0
    assert "in 3 pieces, seed 3" in capsys.readouterr().err
    assert len(sf.read(out)[0]) > 30_000
    for bad in (["say"], ["say", "hello", *line[1:]], [*line, "-o", "-"]):
        with pytest.raises(SystemExit):
            main(bad)
