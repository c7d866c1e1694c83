"""Verified speech: which try is kept, what it carries, and what is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from mars5 import InferenceConfig, Mars5TTS, Speech, Voice
from mars5 import verify as module
from mars5.audio import load_reference
from mars5.cli import main
from mars5.engine import Engine
from mars5.errors import AudioInputError, ConfigError, GenerationError, MissingExtraError
from mars5.eval.alignment import TimedWord, align, settled
from mars5.eval.clips import to_judges
from mars5.eval.ears import RATE, WINDOW_SECONDS
from mars5.verify import Hearing, Verify, derived_seed, describe, recogniser, verified

TEXT = "one two three four"
SHORT = InferenceConfig(timesteps=2, generate_max_len_override=40, freq_penalty=0, deep_clone=False)
READER = Path(__file__).parent.parent / "examples" / "reader.wav"
READER_SAYS = "Unless to be rather cold hearted and rather selfish is to be ill disposed."

needs_extra = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("faster_whisper", "rapidfuzz", "whisper_normalizer")),
    reason="needs the extra: pip install 'mars5[eval]'",
)


class Ears:
    """Hears, one after the other, what the test says."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard
        self.asked = 0

    def transcribe(self, waves: list[Any]) -> list[str]:
        self.asked += 1
        if not self.heard:
            raise RuntimeError("the test does not say more")
        return [self.heard.pop(0)]


def errors(said: list[str], heard: list[str]) -> int:
    same = sum(one == other for one, other in zip(said, heard, strict=False))
    return max(len(said), len(heard)) - same


@pytest.fixture
def hears(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ears]:
    """Replaces the recogniser, so that no extra is needed."""

    def install(*heard: str) -> Ears:
        ears = Ears(list(heard))
        monkeypatch.setattr(module, "recogniser", lambda name: ears)
        monkeypatch.setattr(module, "words_of", str.split)
        monkeypatch.setattr(module, "word_errors", errors)
        word = TimedWord("one", 0.1, 0.2, 0.5)
        monkeypatch.setattr(module, "align", lambda ears, wave, text: [word, word])
        return ears

    return install


def speech_of(seconds: float) -> Speech:
    codes = torch.zeros(1, 8, dtype=torch.int64)
    return Speech(torch.zeros(round(seconds * 24_000)), codes, codes[:, 0], "stop")


# which try is kept


def test_the_first_try_is_kept_if_it_is_understood(hears: Callable[..., Ears]) -> None:
    ears, seeds = hears("one two three four"), []

    def speak(seed: int) -> Speech:
        seeds.append(seed)
        return speech_of(1.0)

    speech = verified(speak, TEXT, Verify(), 7)
    assert (seeds, ears.asked) == ([7], 1)
    (hearing,) = speech.heard
    assert hearing.words == (TimedWord("one", 0.1, 0.2, 0.5),) * 2
    assert replace(hearing, words=()) == Hearing(TEXT, TEXT, 0.0, 0.5, (), 1, 7)


def test_a_bad_try_is_made_again_until_one_is_good_enough(hears: Callable[..., Ears]) -> None:
    hears("one", "one two three", "one two three four", "never heard")
    seeds: list[int] = []

    def speak(seed: int) -> Speech:
        seeds.append(seed)
        return speech_of(1.0)

    (hearing,) = verified(speak, TEXT, Verify(tries=5), 7).heard
    assert (hearing.tries, hearing.word_error_rate) == (3, 0.0)
    assert hearing.seed == seeds[2] == derived_seed(7, 2)
    assert len(set(seeds)) == 3


def test_the_limit_decides_what_is_good_enough(hears: Callable[..., Ears]) -> None:
    hears("one two three")
    (hearing,) = verified(
        lambda seed: speech_of(1.0), TEXT, Verify(max_word_error_rate=0.25), 1
    ).heard
    assert (hearing.tries, hearing.word_error_rate) == (1, 0.25)


def test_the_best_is_kept_if_none_is_good_enough(hears: Callable[..., Ears]) -> None:
    hears("one", "one two three", "one two")
    made = iter([speech_of(1.0), speech_of(1.1), speech_of(1.2)])
    speech = verified(lambda seed: next(made), TEXT, Verify(tries=3), 1)
    (hearing,) = speech.heard
    assert (hearing.heard, hearing.tries, hearing.seed) == (
        "one two three", 3, derived_seed(1, 1),
    )  # fmt: skip
    assert len(speech.audio) == 26_400


def test_of_equals_the_more_plausible_duration_is_kept(hears: Callable[..., Ears]) -> None:
    hears("one two", "one two", "one two")
    made = iter([speech_of(9.0), speech_of(1.2), speech_of(0.1)])  # about 1.2 s is expected
    speech = verified(lambda seed: next(made), TEXT, Verify(tries=3), 1)
    assert len(speech.audio) == 28_800


def test_of_faster_speech_a_shorter_duration_is_plausible(hears: Callable[..., Ears]) -> None:
    hears("one two", "one two")
    made = iter([speech_of(1.1), speech_of(0.6)])  # 1.2 s at speed 1
    speech = verified(lambda seed: next(made), TEXT, Verify(tries=2), 1, speed=2.0)
    assert len(speech.audio) == 14_400


def test_the_speed_of_the_settings_counts(
    tiny: Mars5TTS,
    speechlike: np.ndarray,
    hears: Callable[..., Ears],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hears("one two", "one two")
    expected: list[float] = []
    judged = module._implausibility
    monkeypatch.setattr(
        module,
        "_implausibility",
        lambda speech, seconds: (expected.append(seconds), judged(speech, seconds))[1],
    )
    for speed in (1.0, 2.0):
        tiny.generate(TEXT, speechlike, cfg=SHORT, speed=speed, seed=1, verify=Verify(tries=1))
    assert expected == pytest.approx([len(TEXT) / 15.5, len(TEXT) / 31])


def test_a_try_without_speech_counts_and_is_passed_over(hears: Callable[..., Ears]) -> None:
    hears("one two three four")

    def speak(seed: int) -> Speech:
        if seed == 7:
            raise GenerationError("ended at once")
        return speech_of(1.0)

    (hearing,) = verified(speak, TEXT, Verify(), 7).heard
    assert (hearing.tries, hearing.seed) == (2, derived_seed(7, 1))


def test_if_no_try_gives_speech_the_last_reason_is_raised(hears: Callable[..., Ears]) -> None:
    hears()

    def speak(seed: int) -> Speech:
        raise GenerationError(f"ended at once with {seed}")

    with pytest.raises(GenerationError, match=f"with {derived_seed(7, 1)}$"):
        verified(speak, TEXT, Verify(tries=2), 7)


def test_silence_has_no_words_and_no_confidence(hears: Callable[..., Ears]) -> None:
    hears("")
    (hearing,) = verified(lambda seed: speech_of(1.0), TEXT, Verify(tries=1), 1).heard
    assert (hearing.word_error_rate, hearing.confidence, hearing.words) == (1.0, 0.0, ())


def test_long_babble_has_no_word_times(hears: Callable[..., Ears]) -> None:
    hears("one")
    (hearing,) = verified(
        lambda seed: speech_of(WINDOW_SECONDS + 1), TEXT, Verify(tries=1), 1
    ).heard
    assert hearing.words == ()


def test_derived_seeds_are_seeds_and_far_from_those_of_neighbours() -> None:
    seeds = [derived_seed(seed, number) for seed in range(5) for number in range(1, 5)]
    assert len(set(seeds)) == 20
    assert all(100 < seed < 2**63 for seed in seeds)


def test_a_hearing_moves_with_its_audio() -> None:
    hearing = Hearing(TEXT, TEXT, 0.0, 1.0, (TimedWord("one", 0.5, 0.75, 1.0),), 1, 7)
    assert hearing.shifted(2.0).words == (TimedWord("one", 2.5, 2.75, 1.0),)
    assert "1 try, seed 7" in describe(hearing)


# through the facade and the command line


def test_generate_repeats_with_the_seed_that_it_tells(
    tiny: Mars5TTS, speechlike: np.ndarray, hears: Callable[..., Ears]
) -> None:
    voice: Voice = tiny.voice(speechlike)
    hears("one", "one two three four")
    speech = tiny.generate(TEXT, voice, cfg=SHORT, seed=5, verify=True)
    assert speech.heard[0].tries == 2
    again = tiny.generate(TEXT, voice, cfg=SHORT, seed=speech.heard[0].seed)
    assert torch.equal(speech.audio, again.audio)
    assert again.heard == ()


def test_a_generator_gives_the_first_seed(
    tiny: Mars5TTS, speechlike: np.ndarray, hears: Callable[..., Ears]
) -> None:
    hears(TEXT, TEXT)
    voice = tiny.voice(speechlike)
    one, other = (
        tiny.generate(
            TEXT, voice, cfg=SHORT, generator=torch.Generator().manual_seed(3), verify=True
        )
        for _ in range(2)
    )
    assert one.heard[0].seed == other.heard[0].seed
    assert torch.equal(one.audio, other.audio)


def test_tts_verifies_too(
    tiny: Mars5TTS, speechlike: np.ndarray, hears: Callable[..., Ears]
) -> None:
    voice = tiny.voice(speechlike)
    hears("wrong", TEXT)
    _, audio = tiny.tts(TEXT, voice, cfg=SHORT, seed=1, verify=True)
    hears("wrong", TEXT)
    assert torch.equal(audio, tiny.generate(TEXT, voice, cfg=SHORT, seed=1, verify=True).audio)
    assert not torch.equal(audio, tiny.generate(TEXT, voice, cfg=SHORT, seed=1).audio)


def test_settings_out_of_range() -> None:
    for wrong in ({"tries": 0}, {"tries": True}, {"tries": 101}, {"max_word_error_rate": 1.5},
                  {"max_word_error_rate": float("nan")}, {"asr": "huge"}):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Verify(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [3, "yes", None])
def test_verify_of_another_type(tiny: Mars5TTS, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="verify must be True, False or a Verify"):
        tiny.generate(TEXT, verify=wrong)


def test_a_missing_extra_is_told_before_any_work(
    tiny: Mars5TTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faster_whisper", None)
    recogniser.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'mars5\[eval\]'"):
        tiny.generate(TEXT, "no/such/file.wav", verify=True)


def test_say_tells_what_was_heard(
    tiny_folder: Path,
    tmp_path: Path,
    hears: Callable[..., Ears],
    capsys: pytest.CaptureFixture[str],
) -> None:
    hears("one", "one two")
    out = tmp_path / "out.wav"
    line = ["say", TEXT, "--ref", str(READER), "-o", str(out), "--model", str(tiny_folder),
            "--seed", "1", "--verify", "2"]  # fmt: skip
    assert main(line) == 0
    assert "heard 'one two': word error rate 50%, confidence 0.50, 2 tries" in (
        capsys.readouterr().err
    )
    assert out.exists()


# long texts, piece by piece

FIRST, SECOND, THIRD = "one two three.", "Then four five six.", "And seven eight nine."
LONG = f"{FIRST}\n\n{SECOND}\n\n{THIRD}"


def test_a_narration_is_what_generate_gives_piece_by_piece(
    tiny: Mars5TTS, speechlike: np.ndarray, hears: Callable[..., Ears]
) -> None:
    voice, said = tiny.voice(speechlike), (FIRST, "nothing", SECOND, "", "nothing", THIRD)
    hears(*said)
    whole = tiny.generate(LONG, voice, cfg=SHORT, seed=5, verify=True)
    ears = hears(*said)
    passages, asked = [], []
    for passage in tiny.narrate(LONG, voice, cfg=SHORT, seed=5, verify=True):
        passages.append(passage)
        asked.append(ears.asked)
    assert asked == [1, 3, 6]  # each is verified before it is given
    assert torch.equal(torch.cat([passage.audio for passage in passages]), whole.audio)
    at, heard = 0.0, []
    for passage in passages:
        heard += [hearing.shifted(at) for hearing in passage.heard]
        at += len(passage.audio) / 24_000
    assert [hearing.tries for hearing in heard] == [1, 2, 3]
    assert [replace(one, words=()) for one in heard] == [
        replace(one, words=()) for one in whole.heard
    ]
    for one, other in zip(heard, whole.heard, strict=True):
        starts = [word.start for word in other.words]
        assert [word.start for word in one.words] == pytest.approx(starts)


def test_a_pause_in_front_moves_the_words(
    tiny: Mars5TTS, speechlike: np.ndarray, hears: Callable[..., Ears]
) -> None:
    hears(TEXT)
    text = f"[pause 1s] {TEXT}"
    (passage,) = tiny.narrate(text, tiny.voice(speechlike), cfg=SHORT, seed=5, verify=True)
    assert passage.speech.heard[0].words[0].start == 0.1
    assert passage.heard[0].words[0].start == pytest.approx(1.1)


def test_a_narration_tells_which_piece_gave_nothing(
    tiny: Mars5TTS,
    speechlike: np.ndarray,
    hears: Callable[..., Ears],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hears()

    def nothing(*_: Any) -> Speech:
        raise GenerationError("nothing came")

    voice = tiny.voice(speechlike)
    monkeypatch.setattr("mars5.engine.Engine.utterance", nothing)
    with pytest.raises(GenerationError, match=r"piece 0 'one two three\.': nothing came"):
        list(tiny.narrate(LONG, voice, cfg=SHORT, seed=5, verify=True))


def test_a_killed_chapter_keeps_what_was_verified(
    tiny: Mars5TTS,
    speechlike: np.ndarray,
    hears: Callable[..., Ears],
    tmp_path: Path,
) -> None:
    voice, check = tiny.voice(speechlike), Verify(tries=2)
    given: dict[str, Any] = {"cfg": SHORT, "seed": 5, "verify": check}
    hears(FIRST, "nothing", SECOND, THIRD)
    wanted = tiny.speak_file(LONG, tmp_path / "wanted.wav", voice, **given)
    assert [hearing.tries for hearing in wanted.heard] == [1, 2, 1]
    assert [hearing.text for hearing in wanted.heard] == [FIRST, SECOND, THIRD]
    starts = [hearing.words[0].start for hearing in wanted.heard]
    assert 0.1 == starts[0] < starts[1] < starts[2] < wanted.seconds

    path = tmp_path / "chapter.wav"
    hears(FIRST, "nothing", SECOND)  # and then it fails
    with pytest.raises(RuntimeError):
        tiny.speak_file(LONG, path, voice, **given)
    ears = hears(THIRD)
    chapter = tiny.speak_file(LONG, path, voice, **given)
    assert (chapter.reused, ears.asked) == (2, 1)
    assert chapter.heard == wanted.heard
    assert path.read_bytes() == (tmp_path / "wanted.wav").read_bytes()


@pytest.mark.parametrize("other", [False, True, Verify(tries=2, max_word_error_rate=0.5)])
def test_another_verification_makes_all_anew(
    tiny: Mars5TTS,
    speechlike: np.ndarray,
    hears: Callable[..., Ears],
    tmp_path: Path,
    other: bool | Verify,
) -> None:
    voice, path = tiny.voice(speechlike), tmp_path / "chapter.wav"
    hears(FIRST)
    with pytest.raises(RuntimeError):
        tiny.speak_file(LONG, path, voice, cfg=SHORT, seed=5, verify=Verify(tries=2))
    hears(FIRST, SECOND, THIRD)
    chapter = tiny.speak_file(LONG, path, voice, cfg=SHORT, seed=5, verify=other)
    assert chapter.reused == 0
    assert len(chapter.heard) == (0 if other is False else 3)


def test_say_a_file_tells_what_was_not_understood(
    tiny_folder: Path,
    tmp_path: Path,
    hears: Callable[..., Ears],
    capsys: pytest.CaptureFixture[str],
) -> None:
    hears(FIRST, "Then", "Then four", "", "")
    text, out = tmp_path / "text.txt", tmp_path / "out.wav"
    text.write_text(LONG, encoding="utf-8")
    line = ["say", "-f", str(text), "--ref", str(READER), "-o", str(out),
            "--model", str(tiny_folder), "--seed", "1", "--verify", "2"]  # fmt: skip
    assert main([*line, "--steps", "2"]) == 0
    told = capsys.readouterr().err
    assert "heard 3 pieces in 5 tries: mean confidence 0.33, 2 not understood" in told
    assert "mars5: heard '': word error rate 100%" in told
    assert "s heard 'Then four': word error rate 50%, confidence 0.50, 2 tries" in told
    assert told.index("100%") < told.index("50%")


def reported(path: Path, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    assert (found["seed"], found["sample_rate"]) == (seed, 24_000)
    assert found["finish_reason"] in ("stop", "length")
    return found


@pytest.mark.parametrize("given", ["text", "file"])
def test_say_reports_what_was_said_when(
    tiny_folder: Path, tmp_path: Path, hears: Callable[..., Ears], given: str
) -> None:
    text, out, report = (tmp_path / name for name in ("text.txt", "out.wav", "out.json"))
    text.write_text(LONG, encoding="utf-8")
    said = [LONG] if given == "text" else ["-f", str(text)]
    line = ["say", *said, "--ref", str(READER), "-o", str(out), "--model", str(tiny_folder)]
    line += ["--seed", "1", "--steps", "2", "--json", str(report)]
    hears(FIRST, "nothing", "nothing else", THIRD)
    assert main([*line, "--verify", "2"]) == 0
    found = reported(report, 1)
    audio, rate = sf.read(out)
    assert found["output"] == str(out)
    assert found["seconds"] == pytest.approx(len(audio) / rate, abs=1e-3)
    assert [piece["text"] for piece in found["pieces"]] == [FIRST, SECOND, THIRD]
    heard = [Hearing.of_facts(facts) for facts in found["heard"]]
    assert [hearing.tries for hearing in heard] == [1, 2, 1]
    before = 0.0
    for piece, hearing in zip(found["pieces"], heard, strict=True):
        assert hearing.words[0].start == pytest.approx(piece["start"] + 0.1, abs=1e-3)
        assert before <= piece["start"] < piece["stop"] <= found["seconds"]
        pause = audio[math.ceil(before * rate) + 24 : max(0, int(piece["start"] * rate) - 24)]
        assert not pause.any()
        before = piece["stop"]
    assert main([*line, "--seed", "2"]) == 0
    assert reported(report, 2)["heard"] == []


def test_the_report_tells_of_profile_and_style(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["say", TEXT, "--ref", str(READER), "-o", str(tmp_path / "out.wav"), "--json", "-"]
    line += ["--model", str(tiny_folder), "--seed", "1", "--steps", "2"]
    directions = ["--profile", "flash", "--style-strength", "0.5"]
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["profile"], found["style"]) == (None, None)
    assert main([*line, *directions, "--instructions", "warm"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["profile"] == {"name": "flash", "reason": "asked for by name"}
    style = found["style"]
    assert (style["name"], style["strength"]) == ("warm", 0.5)
    assert 0 < style["score"] <= 1
    assert style["reason"]
    assert main([*line, *directions, "--style", str(READER)]) == 0
    style = json.loads(capsys.readouterr().out)["style"]
    assert style == {"name": "reader.wav", "file": str(READER), "strength": 0.5}


def test_a_chapter_tells_when_its_pieces_are_spoken(
    tiny: Mars5TTS, speechlike: np.ndarray, tmp_path: Path
) -> None:
    text, voice = f"[pause 1s] {LONG}", tiny.voice(speechlike)
    whole = tiny.generate(text, voice, cfg=SHORT, seed=5)
    chapter = tiny.speak_file(text, tmp_path / "a.wav", voice, cfg=SHORT, seed=5)
    assert chapter.spoken == whole.pieces
    assert chapter.spoken[0].start == 24_000


@pytest.mark.parametrize("call", ["narrate", "speak_file"])
def test_long_texts_refuse_another_type_at_once(tiny: Mars5TTS, tmp_path: Path, call: str) -> None:
    output = [] if call == "narrate" else [tmp_path / "out.wav"]
    with pytest.raises(ConfigError, match="verify must be True, False or a Verify"):
        getattr(tiny, call)(TEXT, *output, verify=3)
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_code_that_runs(
    tiny: Mars5TTS,
    speechlike: np.ndarray,
    hears: Callable[..., Ears],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "verify.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 2
    parts = tiny.ar, tiny.nar, tiny.text_tokenizer, tiny.speech_tokenizer, tiny.codec
    engine = Engine(*parts, tiny.vocoder, tiny.config, tiny.voice(speechlike))
    monkeypatch.setattr(Mars5TTS, "from_pretrained", lambda name: Mars5TTS(engine))
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        hears(*["one"] * 20)
        exec(compile(block, "docs/verify.md", "exec"), {})
    assert (tmp_path / "chapter.flac").is_file()


# word times


def test_edges_move_to_quiet_places_and_silence_is_no_ones() -> None:
    wave = np.zeros(RATE, dtype=np.float32)
    wave[2000:6000] = wave[6400:9000] = 0.5  # 0.125 to 0.375 s, 0.4 to 0.5625 s
    words = [TimedWord("a", 0.0, 0.35, 1.0), TimedWord("b", 0.35, 1.0, 1.0)]
    one, other = settled(words, wave)
    assert (one.start, one.end) == pytest.approx((0.12, 0.38), abs=0.011)
    assert (other.start, other.end) == pytest.approx((0.4, 0.57), abs=0.011)


def test_edges_stay_where_nothing_is_quieter_and_pauses_stay() -> None:
    wave = np.full(RATE, 0.5, dtype=np.float32)
    words = [TimedWord("a", 0.0, 0.3, 1.0), TimedWord("b", 0.5, 1.0, 1.0)]
    assert settled(words, wave) == words


@needs_extra
def test_words_are_found_where_they_are_said() -> None:
    wave = to_judges(load_reference(READER).numpy(), 24_000)
    words = align(recogniser("base"), wave, READER_SAYS)
    assert " ".join(word.text for word in words) == READER_SAYS
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    assert edges[-1] < len(wave) / RATE
    found = {word.text: word.start for word in words}
    # a recogniser hears just these words in the recording from there on
    assert found["selfish"] == pytest.approx(2.65, abs=0.15)
    assert found["disposed."] == pytest.approx(4.4, abs=0.15)
    assert np.mean([word.probability for word in words]) > 0.5


@needs_extra
def test_words_are_not_sought_in_what_whisper_cannot_see() -> None:
    with pytest.raises(AudioInputError, match=r"lasts 30\.0 s.*at most 29 s"):
        align(recogniser("tiny.en"), np.zeros(30 * RATE, np.float32), TEXT)
    assert align(recogniser("tiny.en"), np.zeros(0, np.float32), TEXT) == []
