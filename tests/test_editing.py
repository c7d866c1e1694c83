"""Edited recordings: what changes, what stays exactly, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from conftest import tiny_config, write_tiny_model
from torch import Tensor

from mars5 import InferenceConfig, Mars5TTS, Voice
from mars5.cli import main
from mars5.config import PromptConvention
from mars5.editing import Edited
from mars5.engine import Engine, Task
from mars5.errors import (
    AudioInputError,
    ConfigError,
    GenerationError,
    MissingExtraError,
    TextError,
    VoiceError,
)
from mars5.eval.alignment import TimedWord
from mars5.eval.clips import read_wave
from mars5.eval.text import word_errors, words_of
from mars5.text import prepare
from mars5.transcripts import Change, changes, check_times, gap
from mars5.verify import recogniser

SAID = "one two three four five"
TIMES = [(0.1, 0.3), (0.3, 0.5), (0.6, 0.8), (0.8, 1.0), (1.1, 1.4)]
RATE = 37.5
CFG = InferenceConfig(timesteps=3, freq_penalty=0, trim_db=200)
READER = Path(__file__).parent.parent / "examples" / "reader.wav"
READER_SAYS = "Unless to be rather cold hearted and rather selfish is to be ill disposed."

needs_extra = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("faster_whisper", "rapidfuzz", "whisper_normalizer")),
    reason="needs the extra: pip install 'mars5[eval]'",
)


@pytest.fixture(scope="module")
def voice(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    """57 frames, 1.5 s."""
    return tiny.voice(speechlike)


def edited(system: Mars5TTS, voice: Voice, new: str, seed: int = 1, **keywords: Any) -> Edited:
    return system.edit(voice, SAID, new, CFG, times=TIMES, seed=seed, **keywords)


def with_own_delivery(system: Mars5TTS, monkeypatch: pytest.MonkeyPatch) -> Voice:
    """Make the AR speak with a default voice, whoever is cloned."""
    convention = replace(system.config.prompt, own_delivery=True)
    monkeypatch.setattr(system.engine, "config", replace(system.config, prompt=convention))
    default = system.voice(torch.ones(30_000).cumsum(0).sin(), "Another.")
    monkeypatch.setattr(system.engine.voices, "default", default)
    return default


def kept(edit: Edited) -> Tensor:
    """The codes outside of the new frames."""
    stays = torch.ones(len(edit.codes), dtype=torch.bool)
    for span in edit.spans:
        stays[slice(*span.frames)] = False
    return edit.codes[stays]


def left(edit: Edited, codes: Tensor) -> Tensor:
    """The codes of the recording outside of what was removed."""
    stays = torch.ones(len(codes), dtype=torch.bool)
    for span in edit.spans:
        stays[slice(*span.removed)] = False
    return codes[stays]


# what changes and what stays


@pytest.mark.parametrize(
    "new",
    [
        "one two six four five",
        "zero two three four five",
        "one two three four six seven",
        "one two and three four five",
        "zero one two three four five",
        "one two three four five six",
        "one six three seven five",
        "one six seven three five eight",
        "one two four five",
    ],
)
def test_outside_of_the_edit_the_codes_are_those_of_the_recording(
    tiny: Mars5TTS, voice: Voice, new: str
) -> None:
    edit = edited(tiny, voice, new)
    assert torch.equal(kept(edit), left(edit, voice.codes))
    for span, change in zip(edit.spans, changes(SAID, new), strict=True):
        assert span.old.split() == SAID.split()[change.i1 : change.i2]
        assert span.new.split() == new.split()[change.j1 : change.j2]
        assert span.removed == tuple(round(at * RATE) for at in gap(change, TIMES))
        start, stop = span.frames
        assert (stop > start) == bool(span.new)
    assert edit.codes.min() >= 0
    assert edit.codes.max() < 1024


def test_words_left_out_need_no_model(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mars5.engine.generate_ids", None)
    monkeypatch.setattr(Engine, "denoise", None)
    edit = edited(tiny, voice, "one four five")
    assert torch.equal(edit.codes, torch.cat([voice.codes[:11], voice.codes[30:]]))
    assert edit.finish_reason == "stop"


def test_far_from_the_edit_the_audio_is_the_sound_of_the_same_codes(
    tiny: Mars5TTS, voice: Voice
) -> None:
    edit = edited(tiny, voice, "one two three four six")
    (span,) = edit.spans
    whole = tiny.vocode(voice.codes)[0]
    untouched = (span.frames[0] - tiny.vocoder.context) * 640
    assert untouched > 10_000
    torch.testing.assert_close(edit.audio[:untouched], whole[:untouched])
    assert len(edit.audio) == len(edit.codes) * 640
    torch.testing.assert_close(edit.audio, tiny.vocode(edit.codes)[0])


@pytest.mark.parametrize("own", [False, True])
def test_new_words_go_on_from_the_codes_before_them(
    tiny: Mars5TTS, voice: Voice, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second edit is written after the first one's new codes, with their words."""
    speaker = with_own_delivery(tiny, monkeypatch).ar_speaker if own else voice.ar_speaker
    tasks: list[Task] = []
    continuation = Engine.continuation

    def spy(self: Engine, *given: Any) -> Task:
        tasks.append(continuation(self, *given))
        return tasks[-1]

    monkeypatch.setattr(Engine, "continuation", spy)
    edit = edited(tiny, voice, "one six three seven five")
    first, second = edit.spans
    coarse = edit.codes[:, 0].tolist()
    assert [(t.delivery.transcript, t.text) for t in tasks] == [
        ("one", "six"),
        ("one six three", "seven"),
    ]
    for task, span in zip(tasks, (first, second), strict=True):
        assert task.delivery.codes[:, 0].tolist() == coarse[: span.frames[0]]
        assert torch.equal(task.ar_speaker, speaker)
        assert tiny.engine.continued_frames(task) == span.frames[0]


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({}, [("one", "twenty-four"), ("one twenty-four three", "nginx")]),
        (
            {"lexicon": {"nginx": "engine 10", "one": "won"}},
            [("won", "twenty-four"), ("won twenty-four three", "engine ten")],
        ),
        (
            {"lexicon": {"nginx": "engine 10"}, "normalise": False},
            [("one", "24"), ("one 24 three", "engine 10")],
        ),
    ],
)
def test_new_words_are_written_out(
    tiny: Mars5TTS,
    voice: Voice,
    keywords: dict[str, Any],
    said: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For the AR and for the NAR; the spans have what was given."""
    spoken: list[Task] = []
    filled: list[str] = []
    continuation, estimator = Engine.continuation, Engine.estimator

    def continued(self: Engine, *given: Any) -> Task:
        spoken.append(continuation(self, *given))
        return spoken[-1]

    def estimated(self: Engine, task: Task) -> Any:
        filled.append(task.text)
        return estimator(self, task)

    monkeypatch.setattr(Engine, "continuation", continued)
    monkeypatch.setattr(Engine, "estimator", estimated)
    edit = edited(tiny, voice, "one 24 three nginx five", **keywords)
    assert [(task.delivery.transcript, task.text) for task in spoken] == said
    assert filled == [" ".join([*said[-1], "five"])]
    assert [(span.old, span.new) for span in edit.spans] == [("two", "24"), ("four", "nginx")]


def test_an_escaped_tag_is_text_as_in_generate(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[str] = []
    estimator = Engine.estimator

    def estimated(self: Engine, task: Task) -> Any:
        filled.append(task.text)
        return estimator(self, task)

    monkeypatch.setattr(Engine, "estimator", estimated)
    new = r"one two \[pause 1s] four five"
    (span,) = edited(tiny, voice, new, normalise=False).spans
    (piece,) = prepare(new, normalise=False)
    assert filled == [piece.text] == ["one two [pause 1s] four five"]
    assert (span.old, span.new) == ("three", "[pause 1s]")


def test_an_escaped_tag_is_the_same_as_before() -> None:
    old, new = rf"say \[pause 1s] {SAID}", rf"say \[pause 1s] {SAID} six"
    assert changes(old, new) == [Change(8, 8, 8, 9)]


@pytest.fixture
def million(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Ears that hear the word end after so many frames; gives the texts they were told."""

    def hear(frames: int) -> list[str]:
        aligned: list[str] = []

        def align(ears: Any, wave: Any, text: str) -> list[TimedWord]:
            aligned.append(text)
            ends = [1.0 if word in ("three", "four", "five") else 0.1 for word in text.split()]
            ends[text.split().index("million")] = frames / RATE
            return [TimedWord("", 0.0, end, 1.0) for end in ends]

        monkeypatch.setattr("mars5.editing.recogniser", lambda name: object())
        monkeypatch.setattr("mars5.editing.heard_times", lambda *given: TIMES)
        monkeypatch.setattr("mars5.editing.align", align)
        return aligned

    return hear


def test_with_ears_the_new_words_end_where_what_they_expand_to_ends(
    tiny: Mars5TTS, voice: Voice, million: Callable[[int], list[str]]
) -> None:
    """The sentence is spoken on, written out; the cut is behind the last word of the number."""
    aligned = million(10)
    edit = tiny.edit(voice, SAID, "one 2 million three four five", CFG, seed=1)
    assert aligned == ["two million three four five"]
    (span,) = edit.spans
    assert span.new == "2 million"
    assert span.frames[1] - span.frames[0] == 10


def test_with_ears_a_delivery_of_its_own_begins_afresh(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says eight words on either side as well, and the new ones are cut out."""
    with_own_delivery(tiny, monkeypatch)
    asked: list[Task] = []
    aligned: list[str] = []
    engine_task = Engine.task

    def task(self: Engine, *given: Any) -> Task:
        asked.append(engine_task(self, *given))
        return asked[-1]

    def align(ears: Any, wave: Any, text: str) -> list[TimedWord]:
        aligned.append(text)
        frames = [*range(6), *range(6, 100, 5)]  # words from the sixth on are longer
        return [TimedWord("", a / RATE, b / RATE, 1.0) for a, b in pairwise(frames)]

    said = "a b c d e one two f g h i j k l m n o"
    monkeypatch.setattr(Engine, "task", task)
    monkeypatch.setattr(Engine, "continuation", lambda *_: pytest.fail("went on"))
    monkeypatch.setattr("mars5.editing.recogniser", lambda name: object())
    monkeypatch.setattr("mars5.editing.align", align)
    times = [(0.05 * n, 0.05 * n + 0.05) for n in range(len(said.split()))]
    monkeypatch.setattr("mars5.editing.heard_times", lambda *_: times)
    edit = tiny.edit(voice, said, said.replace("two", "2 million"), CFG, seed=1)
    assert aligned == ["a b c d e one two million f g h i j k l m"]
    assert [t.text for t in asked] == [said.replace("two", "two million"), *aligned]
    (span,) = edit.spans
    assert span.frames[1] - span.frames[0] == 2 * 5


def test_the_ar_goes_on_from_its_own_voice(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny.engine.goes_on_from(voice)
    own = with_own_delivery(tiny, monkeypatch)
    assert tiny.engine.goes_on_from(replace(own, transcript=None))
    assert not tiny.engine.goes_on_from(voice)


@pytest.mark.parametrize("frames", [0, 1, 8])
def test_too_little_speech_for_the_new_words_is_an_error(
    frames: int, tiny: Mars5TTS, voice: Voice, million: Callable[[int], list[str]]
) -> None:
    million(frames)
    said = f"gave {frames / RATE:.2f} s of speech for the new words 'two million'"
    with pytest.raises(GenerationError, match=f"{said}, too little .* try another seed"):
        tiny.edit(voice, SAID, "one 2 million three four five", CFG, seed=1)


def test_the_nar_sees_both_sides_and_no_less(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    denoise = Engine.denoise
    monkeypatch.setattr(
        Engine,
        "denoise",
        lambda self, estimator, known, *o: (
            asked.append(known),
            denoise(self, estimator, known, *o),
        )[1],
    )
    edit = edited(tiny, voice, "one two six four five")
    ((start, stop),) = [span.frames for span in edit.spans]
    ((mask,),) = [known.mask for known in asked]
    fresh = torch.zeros(len(edit.codes), dtype=torch.bool)
    fresh[start:stop] = True
    assert mask[:, 0].all()
    assert torch.equal(~mask[:, 1:], fresh[:, None].expand(-1, 7))


def test_a_seed_repeats_and_another_does_not(tiny: Mars5TTS, voice: Voice) -> None:
    new = "one two six four five"
    one, again, other = (edited(tiny, voice, new, seed) for seed in (1, 1, 2))
    assert torch.equal(one.audio, again.audio)
    assert not torch.equal(one.codes, other.codes)


def test_a_recording_is_as_good_as_its_voice(
    tiny: Mars5TTS, speechlike: np.ndarray, voice: Voice
) -> None:
    padding = replace(CFG, ref_audio_pad=0.5)  # would shift the words
    new = "one two six four five"
    one = tiny.edit(speechlike, SAID, new, padding, times=TIMES, seed=1)
    assert torch.equal(one.codes, edited(tiny, voice, new).codes)


def test_the_published_convention(tmp_path: Path, speechlike: np.ndarray) -> None:
    """The first speech token after the text is lost, and belongs to what is there already."""
    config = replace(tiny_config(), prompt=PromptConvention())
    system = Mars5TTS.from_pretrained(write_tiny_model(tmp_path, config), device="cpu")
    voice = system.voice(speechlike)
    for new in ("one two six four five", "zero two three four five"):
        edit = edited(system, voice, new)
        assert torch.equal(kept(edit), left(edit, voice.codes))


def test_verified_edits_keep_the_best_try(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ears:
        heard = iter(["one two", "one two six four five"])

        def transcribe(self, waves: list[Any]) -> list[str]:
            return [next(self.heard)]

    monkeypatch.setattr("mars5.verify.recogniser", lambda name: Ears())
    monkeypatch.setattr("mars5.verify.words_of", str.split)
    monkeypatch.setattr("mars5.verify.word_errors", lambda said, heard: len(said) - len(heard))
    monkeypatch.setattr("mars5.verify.align", lambda *given: [])
    new = "one two six four five"
    edit = edited(tiny, voice, new, verify=True)
    (hearing,) = edit.heard
    assert (hearing.tries, hearing.word_error_rate) == (2, 0.0)
    assert torch.equal(edit.audio, edited(tiny, voice, new, hearing.seed).audio)


# what is refused


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("One, two three; four five!", "nothing to edit"),
        ("six seven", "no word of transcript"),
        ("", "new_transcript"),
        ("?!", "new_transcript"),
        (
            "One two [pause 1s] four five",
            r"new_transcript holds \[pause 1s\] at .* leave the tag out",
        ),
        ("[PAUSE 300 ms] One four five", r"new_transcript holds \[PAUSE 300 ms\] at position 0"),
    ],
)
def test_transcripts_without_an_edit(tiny: Mars5TTS, voice: Voice, new: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        edited(tiny, voice, new)


def test_new_words_of_which_the_lexicon_leaves_nothing(tiny: Mars5TTS, voice: Voice) -> None:
    with pytest.raises(TextError, match="nothing is said for the new words 'um'"):
        edited(tiny, voice, "one um two three four five", lexicon={"um": ""})


def test_a_long_recording_is_to_be_cut_up(
    tiny: Mars5TTS, speechlike: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """A reference would be picked from; that is no advice here."""
    short = replace(CFG, max_prompt_dur=1)
    tiny.edit(speechlike, SAID, "one three four five", short, times=TIMES)
    (record,) = caplog.records
    assert "lasts 1.5 s" in record.message
    assert record.message.endswith("cut it up")


def test_more_words_than_the_model_has_room_for(tiny: Mars5TTS, voice: Voice) -> None:
    with pytest.raises(TextError, match="the model has room for"):
        edited(tiny, voice, "one two six four five " + "more " * 900)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (3, "times must be a list of pairs in seconds, got int"),
        (TIMES[:4], "has 4 entries, but transcript has 5 words"),
        ([*TIMES[:4], (0.9, 1.4)], "'five'.*not before 1 s"),
        ([*TIMES[:4], (1.4, 1.1)], "'five'"),
        ([(-0.1, 0.2), *TIMES[1:]], "'one'"),
        ([*TIMES[:4], (1.1, float("inf"))], "'five'"),
        ([*TIMES[:4], 1.1], "'five'"),
        ([*TIMES[:4], ("a", "b")], "'five'"),
        ([*TIMES[:4], (1.1, 3.0)], r"end at 3 s, but the recording lasts 1\.52 s"),
    ],
)
def test_times_that_cannot_be_meant(tiny: Mars5TTS, voice: Voice, times: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.edit(voice, SAID, "one two six four five", CFG, times=times)


def test_times_may_touch() -> None:
    check_times([(0, 0.5), (0.5, 0.5)], "one two")


def test_a_blend_has_no_recording(tiny: Mars5TTS, voice: Voice) -> None:
    with pytest.raises(VoiceError, match="no recording that could be edited"):
        edited(tiny, Voice.blend([(voice, 1.0)]), "one two six four five")


def test_without_the_extra_times_are_needed_and_nothing_is_done(
    tiny: Mars5TTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    recogniser.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'mars5\[eval\]'"):
        tiny.edit("no/such/file.wav", SAID, "one two six four five")


# with ears


@needs_extra
def test_a_transcript_of_something_else_is_refused(tiny: Mars5TTS) -> None:
    with pytest.raises(TextError, match=r"does not fit the recording.*selfish"):
        tiny.edit(READER, "The weather is fine today.", "The weather was fine today.")


@needs_extra
def test_recordings_that_whisper_cannot_see(tiny: Mars5TTS) -> None:
    long = np.tile(sf.read(READER, dtype="float32")[0], 6)
    with pytest.raises(AudioInputError, match="at most 29 s"):
        tiny.edit((long, 16_000), READER_SAYS, READER_SAYS.replace("cold", "warm"))


@needs_extra
def test_words_left_out_of_a_recording_are_not_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.wav"
    new = READER_SAYS.replace("rather cold", "cold")
    line = ["edit", str(READER), "--transcript", READER_SAYS, "--new", new, "-o", str(out)]
    assert main([*line, "--seed", "1", "--verify", "1"]) == 0
    told = capsys.readouterr().err
    assert "'rather' -> ''" in told
    assert "heard " in told
    heard = recogniser("base").transcribe([read_wave(out)])[0]
    # those of the resynthesised recording, where "ill disposed" may become "all disposed"
    assert word_errors(words_of(new), words_of(heard)) <= 2


# the command line


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (["--transcript", SAID], 2, "required: --new"),
        (["--transcript", SAID, "--new", SAID], 1, "nothing to edit"),
        (["--transcript", SAID, "--new", "one", "-o", "out.txt"], 1, "must end in one of .wav"),
        (["--transcript", SAID, "--new", "one", "--verify", "0"], 2, "from 1 up"),
        (["--transcript", SAID, "--new", "one", "--verify", "101"], 1, "tries must be"),
    ],
)
def test_the_command_refuses_before_a_model_is_loaded(
    line: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["edit", str(READER), "--model", "no/such/model", *line])
    except SystemExit as end:
        found = int(str(end.code))
    assert found == code
    assert message in capsys.readouterr().err


def test_the_command_takes_a_voice_file_and_times(
    tiny: Mars5TTS,
    tiny_folder: Path,
    voice: Voice,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    voice.save(tmp_path / "me.voice")
    (tmp_path / "times.json").write_text(json.dumps(TIMES))
    (tmp_path / "words.txt").write_text("nginx = engine x")
    line = f"edit {tmp_path}/me.voice --model {tiny_folder} --times {tmp_path}/times.json --seed 1"
    line += f" --lexicon {tmp_path}/words.txt --no-normalise --set trim_db=200 --device cpu"
    line += " --set generate_max_len_override=500"
    words = ["--transcript", SAID, "--new", "one nginx three 4 five"]
    assert main([*line.split(), *words, "-o", str(tmp_path / "out.wav")]) == 0
    told = capsys.readouterr().err
    assert "'two' -> 'nginx'" in told
    assert "'four' -> '4'" in told
    cfg = replace(tiny.default_config, trim_db=200, generate_max_len_override=500)
    keywords: dict[str, Any] = {"lexicon": {"nginx": "engine x"}, "normalise": False, "seed": 1}
    same = tiny.edit(voice, SAID, words[-1], cfg, times=TIMES, **keywords)
    written, _ = sf.read(tmp_path / "out.wav", dtype="float32")
    np.testing.assert_allclose(written, same.audio.clamp(-1, 1), atol=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the times in"),
        ("[[0, 1]", "as a JSON list"),
        ("[" * 100_000, "as a JSON list"),
        ("3", "times must be a list of pairs"),
        ("[[0, 1]]", "has 1 entries, but transcript has 5 words"),
        ('[[0, 1], [1, 2], [2, 3], [3, "x"], [4, 5]]', "of the word 'four'"),
        ("[[0, 1], [1, 2], [2, 3], [3, 4], [4, 1" + "0" * 400 + "]]", "of the word 'five'"),
    ],
)
def test_files_that_hold_no_times(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are refused before a model is loaded, and named."""
    path = tmp_path / "times.json"
    if content is not None:
        path.write_text(content)
    line = ["edit", str(READER), "--model", "no/such/model", "--times", str(path)]
    assert main([*line, "--transcript", SAID, "--new", "one six three four five"]) == 1
    told = capsys.readouterr().err
    assert str(path) in told
    assert message in told
