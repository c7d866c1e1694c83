"""The reference doctor: known faults give their findings, and excerpts are cut in pauses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import oracle

from mars5 import Voice
from mars5.audio import load_reference
from mars5.audio_bytes import FileBytes
from mars5.cli import main
from mars5.errors import AudioInputError, ConfigError, MissingExtraError, TextError
from mars5.reference.activity import without_short_runs
from mars5.reference.excerpt import best_excerpt, trimmed
from mars5.reference.findings import lufs
from mars5.reference.prepare import prepare_reference
from mars5.reference.recording import measure, read_span
from mars5.reference.report import ReferenceReport, examine

SR = 24_000
READER = Path(__file__).parents[1] / "examples" / "reader.wav"
CODES = (
    "length", "speech", "loudness", "clipping", "offset", "hum", "bandwidth", "noise", "silence",
    "leading_silence", "trailing_silence", "cut_start", "cut_end", "second_speaker",
)  # fmt: skip
Wave = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder takes seconds to load; the tests that want it say so."""

    def missing(_: object) -> None:
        raise MissingExtraError("pip install 'mars5[eval]'")

    monkeypatch.setattr("mars5.reference.findings.least_similarity", missing)


@cache
def murmur() -> Wave:
    """(T,), 40 s of something like speech, without pauses: a gliding buzz and hiss in turns."""
    draw = np.random.default_rng(0)
    t = np.arange(40 * SR) / SR
    glide = np.cumsum(130 + 20 * np.sin(4.4 * t) + 8 * np.sin(11 * t + 3 * np.sin(2 * t))) / SR
    buzz = sum(np.sin(2 * np.pi * k * glide) / k for k in range(1, 20))
    hiss = draw.normal(size=len(t)) * (0.5 + 0.5 * np.sin(2 * np.pi * 1.9 * t))
    return (0.06 * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)) * (buzz + 0.3 * hiss)).astype(np.float32)


def syllables(seconds: float, seed: int) -> Wave:
    start = 9_973 * seed % (15 * SR)
    return murmur()[start : start + round(seconds * SR)]


def phrases(*lengths: float, pause: float = 0.4, noise_db: float = -70, seed: int = 0) -> Wave:
    """Phrases with pauses around each, over white noise."""
    rest = np.zeros(round(pause * SR), np.float32)
    parts = [rest]
    for i, seconds in enumerate(lengths):
        parts += [syllables(seconds, seed + i), rest]
    wave = np.concatenate(parts)
    noise = np.random.default_rng(seed).normal(size=len(wave)) * 10 ** (noise_db / 20)
    return (wave + noise).astype(np.float32)


HEALTHY = phrases(1.5, 1.8, 1.2)


def problems(audio: object) -> dict[str, str]:
    return {f.code: f.severity for f in examine(audio).problems}  # type: ignore[arg-type]


def value(report: ReferenceReport, code: str) -> float:
    found = next(f.value for f in report.findings if f.code == code)
    assert found is not None
    return found


def band_limited(wave: Wave, hz: float) -> Wave:
    spectrum = np.fft.rfft(wave)
    spectrum[np.fft.rfftfreq(len(wave), 1 / SR) > hz] = 0
    return np.fft.irfft(spectrum, len(wave)).astype(np.float32)


def with_hum(wave: Wave, base: int, level: float) -> Wave:
    t = np.arange(len(wave)) / SR
    return wave + sum(level * np.sin(2 * np.pi * base * k * t) / k**3 for k in (1, 2, 3))


def clipped(wave: Wave, share: float, level: float = 1.0) -> Wave:
    """So loud that this share of the samples is cut off, then brought to `level`."""
    return level * np.clip(wave / np.quantile(np.abs(wave), 1 - share), -1, 1)


def with_snr(wave: Wave, snr_db: float) -> Wave:
    speech = np.square(wave[np.abs(wave) > 0.005]).mean()
    noise = np.random.default_rng(9).normal(size=len(wave)) * (speech / 10 ** (snr_db / 10)) ** 0.5
    return (wave + noise).astype(np.float32)


def padded(wave: Wave, before: float, after: float) -> Wave:
    quiet = np.random.default_rng(3).normal(size=round((before + after) * SR)) * 10**-3.5
    return np.concatenate([quiet[: round(before * SR)], wave, quiet[round(before * SR) :]])


# ---------------------------------------------------------------- examine


def test_the_example_is_healthy() -> None:
    report = examine(READER)
    assert report.verdict == "healthy"
    assert tuple(f.code for f in report.findings) == CODES
    assert all(f.limit for f in report.findings)
    assert (report.seconds, report.sample_rate) == (5.3, 16_000)


@pytest.mark.parametrize("kind", ["path", "bytes", "pair", "tensor"])
def test_every_kind_of_audio_gives_the_same_report(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    sf.write(path, HEALTHY, SR, "FLOAT")
    audio = {
        "path": path,
        "bytes": path.read_bytes(),
        "pair": (HEALTHY, SR),
        "tensor": torch.from_numpy(HEALTHY),
    }[kind]
    assert examine(audio).findings == examine(HEALTHY).findings


FAULTS: dict[str, tuple[Callable[[], object], dict[str, str]]] = {
    "none": (lambda: HEALTHY, {}),
    "short": (lambda: phrases(0.9), {"length": "warning"}),
    "very short": (lambda: phrases(0.5, pause=0.2), {"length": "error"}),
    "long": (lambda: phrases(*[1.5] * 8), {"length": "warning"}),
    "quiet": (lambda: 0.05 * phrases(1.5, 1.8, noise_db=-90), {"loudness": "warning"}),
    "clipped": (lambda: clipped(HEALTHY, 0.01), {"clipping": "warning"}),
    "clipped, then turned down": (
        lambda: clipped(band_limited(HEALTHY, 6000), 0.1, 0.4),
        {"clipping": "error"},
    ),
    "offset": (lambda: HEALTHY + 0.03, {"offset": "warning"}),
    "hum at 50 Hz": (lambda: with_hum(HEALTHY, 50, 0.02), {"hum": "warning"}),
    "hum at 60 Hz": (lambda: with_hum(HEALTHY, 60, 0.02), {"hum": "warning"}),
    "telephone": (
        lambda: (band_limited(HEALTHY, 3800)[::3].copy(), 8000),
        {"bandwidth": "warning"},
    ),
    "muffled": (lambda: band_limited(HEALTHY, 4000), {"bandwidth": "warning"}),
    "muffled, with hiss": (
        lambda: with_snr(band_limited(HEALTHY, 4000), 25),
        {"bandwidth": "warning"},
    ),
    "noise at 30 dB": (lambda: with_snr(HEALTHY, 30), {}),
    "noise at 15 dB": (lambda: with_snr(HEALTHY, 15), {"noise": "warning"}),
    "noise at 8 dB": (lambda: with_snr(HEALTHY, 8), {"noise": "error"}),
    "cut at the start": (lambda: HEALTHY[SR:], {"cut_start": "warning"}),
    "cut at the end": (lambda: HEALTHY[: -round(0.6 * SR)], {"cut_end": "warning"}),
    "silent start": (lambda: padded(HEALTHY, 1.5, 0), {"leading_silence": "warning"}),
    "silent end": (lambda: padded(HEALTHY, 0, 1.5), {"trailing_silence": "warning"}),
    "digital silence": (
        lambda: np.pad(HEALTHY, (2 * SR, 0)),
        {"leading_silence": "warning"},
    ),
    "mostly pauses": (lambda: phrases(0.6, 0.6, 0.6, pause=0.9), {"silence": "warning"}),
    "a tone": (
        lambda: 0.1 * np.sin(2 * np.pi * 7000 * np.arange(4 * SR) / SR),
        {"speech": "error"},
    ),
    "two faults": (
        lambda: with_hum(HEALTHY, 50, 0.02)[SR:],
        {"hum": "warning", "cut_start": "warning"},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_known_faults_give_exactly_their_findings(name: str) -> None:
    make, wanted = FAULTS[name]
    report = examine(make())  # type: ignore[arg-type]
    assert {f.code: f.severity for f in report.problems} == wanted
    assert all(f.words for f in report.problems)
    worst = "poor" if "error" in wanted.values() else "usable" if wanted else "healthy"
    assert report.verdict == worst


@pytest.mark.parametrize("fault", ["hum", "offset", "muffled"])
def test_faults_are_found_in_a_real_voice(fault: str) -> None:
    wave = load_reference(READER).numpy()
    changed = {
        "hum": with_hum(wave, 50, 0.02),
        "offset": wave + 0.05,
        "muffled": band_limited(wave, 4000),
    }[fault]
    assert set(problems(changed)) == {"bandwidth" if fault == "muffled" else fault}


@pytest.mark.parametrize("snr", [6, 12, 18, 24, 30])
def test_a_known_distance_from_noise_is_measured(snr: float) -> None:
    found = value(examine(with_snr(phrases(1.5, 1.8, noise_db=-100), snr)), "noise")
    assert found == pytest.approx(snr, abs=2.5)


@pytest.mark.parametrize("hz", [2000, 4000, 7000, 10_000])
def test_a_known_bandwidth_is_measured(hz: float) -> None:
    assert hz <= value(examine(band_limited(HEALTHY, hz)), "bandwidth") <= hz + 1000


def test_the_share_of_clipped_samples() -> None:
    assert value(examine(clipped(HEALTHY, 0.01)), "clipping") == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("audio", ["speech", "noise", "bursts"])
def test_loudness_is_that_of_bs_1770(audio: str) -> None:
    wave = {
        "speech": load_reference(READER).numpy(),
        "noise": np.random.default_rng(0).normal(size=5 * SR).astype(np.float32) * 0.1,
        "bursts": phrases(0.5, 0.5, 0.5, pause=1.5, noise_db=-60),
    }[audio]
    wanted = oracle("torchaudio.functional").loudness(torch.from_numpy(wave)[None], SR).item()
    assert lufs(measure(wave).weighted) == pytest.approx(wanted, abs=0.5)


def test_the_report_in_words_and_as_json() -> None:
    report = examine(with_snr(HEALTHY, 15))
    text = str(report)
    assert text.startswith("the audio array: usable, ")
    assert re.search(r"^  warning  noise .*dB \(.*\) .*quieter room", text, re.M)
    data = json.loads(json.dumps(report.to_json()))
    assert data["verdict"] == "usable"
    assert [f["code"] for f in data["findings"]] == list(CODES)


def test_without_the_extra_the_second_speaker_is_not_checked() -> None:
    finding = examine(HEALTHY).findings[-1]
    assert (finding.code, finding.severity, finding.value) == ("second_speaker", "info", None)
    assert finding.words == "not checked: pip install 'mars5[eval]'"


@pytest.mark.parametrize(("found", "wanted"), [(0.9, {}), (0.6, {"second_speaker": "warning"})])
def test_a_second_speaker(
    found: float, wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mars5.reference.findings.least_similarity", lambda wave: found)
    assert problems(HEALTHY) == wanted


def test_the_search_for_a_second_speaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of the encoder's windows: two voices, one voice, and a single odd window."""
    from mars5.reference import speakers

    one, other = np.eye(2, dtype=np.float32)
    windows = {"two": [one] * 4 + [other] * 3, "one": [one] * 7, "cough": [one] * 6 + [other]}

    class Encoder:
        def embed_utterance(self, wave: Wave, **_: object) -> tuple[None, Wave, None]:
            assert len(wave) == 5 * 16_000
            return None, np.stack(windows[kind]), None

    monkeypatch.setattr(speakers, "_encoder", Encoder)
    wave = np.zeros(5 * SR, np.float32)
    for kind, wanted in (("two", 0.0), ("one", 1.0), ("cough", 1.0)):  # noqa: B007
        assert speakers.least_similarity(wave) == pytest.approx(wanted)
    assert speakers.least_similarity(wave[: 3 * SR]) is None


def test_a_missing_encoder_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from mars5.reference import speakers

    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    speakers._encoder.cache_clear()
    with pytest.raises(MissingExtraError, match=r"mars5\[eval\]"):
        speakers.least_similarity(HEALTHY)


@pytest.mark.parametrize(
    ("audio", "said"),
    [
        (np.zeros(SR, np.float32), "silent"),
        (np.full(SR, np.nan, np.float32), "holds nan at sample 0"),
        (np.concatenate([HEALTHY, [np.inf]]), f"holds inf at sample {len(HEALTHY)}"),
        (np.zeros(100, np.float32), "at least 0.2"),
        ("gone.wav", "gone.wav does not exist"),
        ("http://host/a.wav", "is a URL"),
        (b"", "is empty"),
        (b"RIFF of nothing", "looks like"),
        (None, "audio must be a tensor"),
    ],
)
def test_what_is_no_recording_is_refused(audio: object, said: str) -> None:
    with pytest.raises(AudioInputError, match=re.escape(said)):
        examine(audio)  # type: ignore[arg-type]


def test_more_than_four_hours_are_refused_before_work() -> None:
    hours = np.broadcast_to(np.float32(0), 5 * 3600 * 8000)
    with pytest.raises(AudioInputError, match=r"18000\.0 s or more"):
        examine((hours, 8000))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("share", [0.95, 0.3])
def test_a_truncated_file_is_refused_by_path(kind: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / "a"
    sf.write(path, HEALTHY, SR, format=kind)
    whole = path.read_bytes()
    assert abs(value(examine(path), "length") - len(HEALTHY) / SR) < 0.1
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(AudioInputError, match="cut short"):
        examine(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioInputError, match="is a folder"):
        examine(tmp_path)


@given(
    data=st.binary(min_size=1, max_size=400),
    places=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=20),
)
@settings(max_examples=50, deadline=None)
def test_file_bytes_read_like_bytes(
    data: bytes, places: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "a"
    path.write_bytes(data)
    with path.open("rb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("mars5.audio_bytes._WINDOW", 64)
        view = FileBytes(file)
        assert len(view) == len(data)
        for start, stop in places:
            assert view[start:stop] == data[start:stop]
            if start < len(data):
                assert view.startswith(data[start : start + 8], start)
                assert not view.startswith(data[start:] + b"x", start)
                assert view[start] == data[start]
                assert view[-start - 1 :] == data[-start - 1 :]
        assert view.rfind(data[-3:]) == data.rfind(data[-3:])
        assert file.tell() == 0


def test_short_runs_are_removed_but_at_the_ends() -> None:
    flags = np.array([1, 0, 1, 1, 0, 0, 0, 1, 0], bool)
    assert without_short_runs(flags, True, 2).astype(int).tolist() == [1, 0, 1, 1, 0, 0, 0, 0, 0]
    assert without_short_runs(flags, False, 2).astype(int).tolist() == [1, 1, 1, 1, 0, 0, 0, 1, 0]


# ---------------------------------------------------------------- excerpts


@given(
    lengths=st.lists(st.floats(0.4, 3.0), min_size=8, max_size=16),
    pause=st.floats(0.3, 0.8),
    bounds=st.sampled_from([(5.0, 8.0), (2.0, 4.0), (6.0, 12.0)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_excerpts_lie_between_pauses_within_bounds(
    lengths: list[float], pause: float, bounds: tuple[float, float], seed: int
) -> None:
    wave = phrases(*lengths, pause=pause, seed=seed)
    try:
        found = best_excerpt(wave, bounds)
    except AudioInputError:
        assert not _some_part_fits(lengths, pause, bounds)
        return
    assert bounds[0] - 0.021 <= found.end - found.start <= bounds[1] + 1e-9
    at = pause  # of each phrase: (start, end)
    spans = []
    for seconds in lengths:
        spans.append((at, at + seconds))
        at += seconds + pause
    assert not any(
        a + 0.04 < edge < b - 0.04 for edge in (found.start, found.end) for a, b in spans
    )
    assert found.audio.dtype == torch.float32
    cut = wave[round(found.start * SR) : round(found.end * SR)]
    assert np.array_equal(found.audio.numpy(), cut)
    assert not {"cut_start", "cut_end"} & set(problems(found.audio))


def _some_part_fits(lengths: list[float], pause: float, bounds: tuple[float, float]) -> bool:
    """Whether whole phrases certainly give a part, with a margin of 0.15 s for doubt."""
    for i in range(len(lengths)):
        for j in range(i, len(lengths)):
            speech = sum(lengths[i : j + 1]) + (j - i) * pause
            if bounds[0] + 0.15 <= speech <= bounds[1] - 0.15:
                return True
    return False


def test_the_clean_part_is_found() -> None:
    noisy, clean = with_snr(phrases(2, 2, 2, seed=1), 15), phrases(2, 2, 2, seed=5)
    harsh = clipped(phrases(2, 2, 2, seed=8), 0.05, 0.1)
    found = best_excerpt(np.concatenate([noisy, clean, harsh]))
    lasts = len(noisy) / SR
    assert lasts - 0.1 <= found.start < found.end <= 2 * lasts + 0.1
    assert examine(found.audio).verdict == "healthy"
    assert re.match(r"picked \d+\.\d\d to \d+\.\d\d s, cut in pauses of ", found.words)


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_excerpt_of_a_file_is_that_of_the_samples(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    sf.write(path, phrases(*[1.7] * 9), rate)
    wave, _ = sf.read(path, dtype="float32")
    one, other = best_excerpt(path), best_excerpt((wave, rate))
    assert (one.start, one.end) == (other.start, other.end)
    assert torch.equal(one.audio, other.audio)
    assert len(one.audio) == pytest.approx((one.end - one.start) * SR, abs=2)


def test_spans_are_parts_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    sf.write(path, HEALTHY, 16_000)
    whole = read_span(path, 0, 100)
    assert np.array_equal(read_span(path, 1.25, 3.5), whole[30_000:84_000])
    assert np.abs(whole - load_reference(path).numpy()[: len(whole)]).max() < 1e-3


def test_long_recordings_are_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.wav"
    sf.write(path, np.tile(phrases(*[1.7] * 9), 4), SR)
    monkeypatch.setattr("mars5.audio.read_bytes", lambda path: pytest.fail("read as a whole"))
    assert 5 <= len(best_excerpt(path).audio) / SR <= 8


@pytest.mark.parametrize(
    ("wave", "said"),
    [
        (HEALTHY[: 3 * SR], r"lasts 3\.00 s; an excerpt of 5 s or more"),
        (phrases(12, 12), "no part of 5 to 8 s between two pauses"),
        (np.random.default_rng(0).normal(size=20 * SR) * 0.1, "no part of 5 to 8 s"),
    ],
)
def test_what_has_no_excerpt_is_refused(wave: Wave, said: str) -> None:
    with pytest.raises(AudioInputError, match=said):
        best_excerpt(wave)


@pytest.mark.parametrize("seconds", [(8, 5), (0.5, 5), (5, 61), (5,), 5, (float("nan"), 6)])
def test_lengths_out_of_range(seconds: object) -> None:
    with pytest.raises(ConfigError, match=r"pair \(shortest, longest\) within 1 to 60"):
        best_excerpt(HEALTHY, seconds)  # type: ignore[arg-type]


def test_trimming_keeps_the_speech() -> None:
    found = trimmed(padded(HEALTHY, 2, 3))
    assert found.start == pytest.approx(2 + 0.4 - 0.2, abs=0.05)
    assert found.end == pytest.approx(2 + len(HEALTHY) / SR - 0.4 + 0.2, abs=0.05)


# ---------------------------------------------------------------- preparing


LONG = phrases(*[1.7] * 9)


def test_a_good_recording_is_used_as_it_is() -> None:
    prepared = prepare_reference(HEALTHY, "what it says")
    assert prepared.audio is HEALTHY
    assert prepared.transcript == "what it says"
    assert prepared.used is prepared.report
    assert (prepared.steps, prepared.provenance) == ((), {})


def test_of_a_long_recording_a_part_is_used() -> None:
    prepared = prepare_reference(LONG)
    assert isinstance(prepared.audio, torch.Tensor)
    assert 5 <= len(prepared.audio) / SR <= 8
    assert (prepared.report.verdict, prepared.used.verdict) == ("usable", "healthy")
    assert re.fullmatch(r"picked .*; the recording lasts 19.30 s", prepared.steps[0])
    assert re.fullmatch(r"\d+\.\d\d to \d+\.\d\d s of 19.30 s", prepared.provenance["excerpt"])


def test_silent_ends_are_trimmed() -> None:
    prepared = prepare_reference(padded(HEALTHY, 1.5, 1.5), "what it says")
    assert prepared.transcript == "what it says"
    assert prepared.used.verdict == "healthy"
    assert "trimmed the silent ends" in prepared.steps[0]


def test_no_pick_keeps_all() -> None:
    prepared = prepare_reference(LONG, "all of it", pick=False)
    assert prepared.audio is LONG
    assert [line.split(":")[:2] for line in prepared.lines()] == [["warning", " length 19.3 s"]]


def test_a_transcript_of_the_whole_does_not_fit_a_part() -> None:
    with pytest.raises(ConfigError, match=r"lasts 19\.3 s.*--transcribe.*--no-pick"):
        prepare_reference(LONG, "all of it")


def test_transcripts_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="not both"):
        prepare_reference(HEALTHY, "words", transcribe=True)
    with pytest.raises(TextError, match="nothing to say"):
        prepare_reference(HEALTHY, " ")


def test_transcribing(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = ["Some words."]

    class Ears:
        def __init__(self, name: str) -> None:
            assert name == "tiny.en"

        def transcribe(self, waves: list[Wave]) -> list[str]:
            assert 5 <= len(waves[0]) / 16_000 <= 8
            return heard

    monkeypatch.setattr("mars5.eval.ears.Recogniser", Ears)
    prepared = prepare_reference(LONG, transcribe=True)
    assert prepared.transcript == "Some words."
    assert prepared.steps[1].startswith("heard: 'Some words.'")
    heard[0] = ""
    with pytest.raises(TextError, match="no words were heard"):
        prepare_reference(LONG, transcribe=True)


def test_transcribing_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingExtraError, match=r"mars5\[eval\]"):
        prepare_reference(HEALTHY, transcribe=True)


# ---------------------------------------------------------------- command line


def test_voice_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["voice", "check", str(READER)]) == 0
    assert capsys.readouterr().out.startswith(f"{READER}: healthy, ")
    bad = tmp_path / "bad.wav"
    sf.write(bad, with_snr(HEALTHY, 5), SR)
    assert main(["voice", "check", str(bad), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "poor"


def test_voice_make_of_a_long_recording(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, voice, part = (tmp_path / name for name in ("long.wav", "my.voice", "part.wav"))
    sf.write(recording, LONG, SR)
    make = ["voice", "make", str(recording), "-o", str(voice), "--model", str(tiny_folder)]
    assert main([*make, "--json", "--keep", str(part), "--note", "consent=given"]) == 0
    out, said = capsys.readouterr()
    data = json.loads(out)
    assert data["report"]["verdict"] == "usable"
    assert "mars5: picked " in said
    made = Voice.load(voice)
    assert made.provenance == {**data["provenance"], "consent": "given"}
    assert sf.info(part).duration == pytest.approx(len(made.codes) / 37.5, abs=0.1)

    assert main([*make, "--text", "all of it"]) == 1
    assert "--no-pick" in capsys.readouterr().err
    assert main([*make, "--text", "all of it", "--no-pick", "--quiet"]) == 0
    assert len(Voice.load(voice).codes) == pytest.approx(len(LONG) / 640, abs=2)


def test_voice_make_of_noise_warns_and_goes_on(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, voice = tmp_path / "noise.wav", tmp_path / "noise.voice"
    sf.write(recording, 0.1 * np.random.default_rng(1).standard_normal(5 * SR), SR)
    model = ["--model", str(tiny_folder)]
    assert main(["voice", "make", str(recording), "-o", str(voice), *model]) == 0
    said = capsys.readouterr().err
    assert "mars5: warning: the reference is poor" in said
    assert re.search("^mars5: warning: speech [0-9.]+ dB: ", said, re.M)
    assert "error" not in said
    assert voice.is_file()
    assert main(["voice", "check", str(recording)]) == 1


def test_voice_blend(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / name) for name in ("a.voice", "b.voice", "c:1.voice")]
    model = ["--model", str(tiny_folder)]
    for file, wave in zip(files, (HEALTHY, phrases(1.5, seed=4)), strict=False):
        sf.write(tmp_path / "ref.wav", wave, SR)
        note = ["--note", "consent=given"]
        assert main(["voice", "make", str(tmp_path / "ref.wav"), "-o", file, *note, *model]) == 0
    assert main(["voice", "blend", f"{files[0]}:0.6", f"{files[1]}:0.2", "-o", files[2]]) == 0
    assert capsys.readouterr().err.endswith("shallow clones only\n")
    blend = Voice.load(files[2])
    assert blend.provenance["blend"] == "0.75 of voice 1 + 0.25 of voice 2"
    assert blend.provenance["1.file"] == "a.voice"
    assert blend.provenance["2.consent"] == "given"
    assert main(["voice", "show", files[2]]) == 0
    assert re.search(r"^kind +a blend", capsys.readouterr().out, re.M)
    speech = str(tmp_path / "s.wav")
    assert main(["say", "Hello.", "--voice", files[2], "-o", speech, *model]) == 0
    assert main(["voice", "blend", files[2], files[0], "-o", files[1]]) == 0
    assert main(["voice", "blend", f"{files[0]}:-1", "-o", files[1]]) == 1
    assert "weight of voice 1 must be positive" in capsys.readouterr().err
